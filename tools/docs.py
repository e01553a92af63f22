"""Writes the generated pages in docs/: `make docs`. tests/test_tidy.py checks that they are fresh."""

from __future__ import annotations

from pathlib import Path

from mimir_ray.config.reference import page
from mimir_ray.deploy.settings import Settings

CONFIGURATION = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

if __name__ == "__main__":
    CONFIGURATION.write_text(page(Settings()), encoding="utf-8")
