"""All that is fuzzed."""

from __future__ import annotations

from tests.fuzz import block_targets, push_targets, stored_targets, text_targets, wire_targets

TARGETS = (
    *wire_targets.TARGETS,
    *push_targets.TARGETS,
    *block_targets.TARGETS,
    *stored_targets.TARGETS,
    *text_targets.TARGETS,
)
BY_NAME = {target.name: target for target in TARGETS}
assert len(BY_NAME) == len(TARGETS)
