"""Writes the generated pages in docs/: `make docs`. tests/test_tidy.py checks that they are fresh."""

from __future__ import annotations

from pathlib import Path

from mimir_ray.config.reference import page
from mimir_ray.deploy import limits_reference
from mimir_ray.deploy.settings import Settings
from mimir_ray.promql import reference as promql

DOCS = Path(__file__).resolve().parent.parent / "docs"
CONFIGURATION = DOCS / "configuration.md"
LIMITS = DOCS / "limits.md"
FUNCTIONS = DOCS / "promql-functions.md"

if __name__ == "__main__":
    CONFIGURATION.write_text(page(Settings()), encoding="utf-8")
    LIMITS.write_text(limits_reference.page(Settings()), encoding="utf-8")
    FUNCTIONS.write_text(promql.page(), encoding="utf-8")
