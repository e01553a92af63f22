"""Which modules see to a limit is declared beside it; the sources say whether that is so."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import mimir_ray
from mimir_ray.config.setting import Setting, walk
from mimir_ray.deploy.limits_reference import FIXED, HITS, sections
from mimir_ray.deploy.settings import Settings

PACKAGE = Path(mimir_ray.__file__).parent
DECLARATIONS = ("config/", "deploy/limits_reference.py")
ONLY_SHOWN = frozenset(("gateway/blueprints/compactor.py", "gateway/blueprints/ha_tracker.py"))
"""Pages for people that say what limits are."""
LIMITS = {
    "limits": re.compile(r"(^|[._])limits(\(.*\))?$"),
    "distributor": re.compile(r"(^|[._])(limits|distributor)$"),
    "ingester": re.compile(r"(^|[._])(limits|_instance_limits\.now)$"),
}
"""By the first key of a limit's path: expressions that its values are attributes of."""
FOLDERS = {"limits": "", "distributor": ("roles/distributor/", "gateway/"), "ingester": "roles/ingester/"}
"""Where those are such limits and not others of the same name."""
NOT_OF_LIMITS = {"bucket-index-too-old", "store-consistency-check-failed", "exemplar-out-of-order"}
"""Ids of errors that no limit has; the last one is none of Mimir's and stands in no answer."""
SETTINGS = [one for _, settings in sections(Settings()) for one in settings]


@cache
def attributes() -> dict[str, list[tuple[str, str]]]:
    """Attribute that is read to (module, the expression before the dot)."""
    found = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if not module.startswith(DECLARATIONS):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    found[node.attr].append((module, ast.unparse(node.value)))
    return found


def readers(one: Setting) -> set[str]:
    """Modules that read a limit."""
    kind = one.path[0]
    return {
        module
        for module, before in attributes()[one.attributes[-1]]
        if LIMITS[kind].search(before) and module.startswith(FOLDERS[kind]) and module not in ONLY_SHOWN
    }


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_a_limit_is_read_by_the_modules_that_are_declared_and_by_no_others(one: Setting) -> None:
    assert set(one.declaration.enforced_by) == readers(one)


def test_pages_that_only_show_limits_read_some() -> None:
    modules = {module for found in attributes().values() for module, before in found if before.endswith("limits")}
    assert modules >= ONLY_SHOWN


def test_a_limit_that_refuses_something_is_enforced() -> None:
    declared = {one.name: one.declaration.enforced_by for one in SETTINGS}
    assert all(declared[name] for name in HITS)


def test_no_other_setting_claims_to_be_a_limit() -> None:
    names = {one.name for one in SETTINGS}
    assert all(one.name in names or not one.declaration.enforced_by for one in walk(Settings()))


def test_the_errors_of_the_page_are_those_that_are_raised() -> None:
    """By their ids: as a class's, or as the reason of a refusal, in a module that is no declaration."""
    texts = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
    }
    ids = {hit.error for hits in HITS.values() for hit in hits if hit.error} | {hit.error for _, hit, _ in FIXED}
    sources = "".join(text for module, text in texts.items() if not module.startswith(DECLARATIONS))
    raised = set(re.findall(r'\bid(?:: ClassVar\[str\])? = "([a-z0-9-]+)"', sources))
    raised |= set(re.findall(r'\b[A-Z_.a-z]+: "((?:sample|exemplar|max)-[a-z-]+)"', sources))
    assert raised - ids == NOT_OF_LIMITS
    assert not [one for one in sorted(ids) if f'"{one}"' not in sources]
    assert all(where in texts for _, _, where in FIXED)
