"""Rule groups as users write them: Prometheus' rule files, with the fields that Mimir adds.

Here is the form; what only the PromQL parser and templates can tell is checked by roles/ruler/validation.py.
Upstream: model/rulefmt/rulefmt.go; Mimir pkg/mimirtool/rules/rwrulefmt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mimir_ray.errors import InvalidArgument

from .go_yaml import Decoded, ListOf, MapOf, Shape, decode

Position = tuple[int, int]
"""(line, column) from 1; (0, 0) for what is not there."""

NOWHERE: Position = (0, 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """One recording or alerting rule. Times in ms; `positions` of `record`, `alert` and `expr` in the file."""

    record: str = ""
    alert: str = ""
    expr: str = ""
    for_ms: int = 0
    keep_firing_for_ms: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.alert or self.record

    def position(self, key: str) -> Position:
        return self.positions.get(key, NOWHERE)


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules that are evaluated one after the other. Times in ms; `interval_ms` 0: the default of who evaluates.

    `limit`: of series (alerts) that each of its rules may give; 0: none. `labels` are added to those of every rule,
    whose own win. `query_offset_ms`: how far in the past queries are evaluated; None: the default.
    Mimir's: `source_tenants` that queries see, `align_evaluation_time_on_interval`.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    interval_ms: int = 0
    query_offset_ms: int | None = None
    limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    source_tenants: tuple[str, ...] = ()
    align_evaluation_time_on_interval: bool = False

    def labels_of(self, rule: Rule) -> dict[str, str]:
        """The labels that a rule adds, the group's among them."""
        return {**self.labels, **rule.labels}


_STRINGS = MapOf("string")
_RULE = Shape(
    "rulefmt.Rule",
    {
        "record": "string",
        "alert": "string",
        "expr": "string",
        "for": "duration",
        "keep_firing_for": "duration",
        "labels": _STRINGS,
        "annotations": _STRINGS,
    },
)
_GROUP = Shape(
    "rulefmt.RuleGroup",
    {
        "name": "string",
        "interval": "duration",
        "query_offset": "duration",
        "evaluation_delay": "duration",
        "limit": "int",
        "rules": ListOf(_RULE),
        "labels": _STRINGS,
        "source_tenants": ListOf("string"),
        "align_evaluation_time_on_interval": "bool",
    },
)

# mimirtool's files say which namespace their groups belong to.
_FILE = Shape("rulefmt.RuleGroups", {"namespace": "string", "groups": ListOf(_GROUP)})


# Prometheus reads a file twice, the second time for the places of things, and tells faults of both.
_NODES = Shape(
    "rulefmt.ruleGroups",
    {
        "groups": ListOf(
            Shape(
                "rulefmt.RuleGroupNode",
                {
                    **_GROUP.fields,
                    "rules": ListOf(
                        Shape(
                            "rulefmt.RuleNode",
                            {**_RULE.fields, "record": "anything", "alert": "anything", "expr": "anything"},
                        )
                    ),
                },
            )
        )
    },
)


@dataclass(eq=False)
class RuleFileError(InvalidArgument):
    """A rule file that cannot be read; everything that Prometheus says of it."""

    problems: tuple[str, ...]

    def describe(self) -> str:
        return "\n".join(self.problems)


def parse_rule_file(text: str, *, strict: bool = True) -> tuple[RuleGroup, ...]:
    """The groups of a rule file. Raises `RuleFileError`.

    `strict`: unknown keys are errors.
    # Differs: Mimir's keys of groups, and mimirtool's `namespace`, are known.
    """
    problems = []
    try:
        return tuple(map(_group, decode(text, _FILE, strict=strict).get("groups", [])))
    except InvalidArgument as error:
        problems.append(error.describe())
    try:
        decode(text, _NODES, strict=False)
    except InvalidArgument as error:
        problems.append(error.describe())
    raise RuleFileError(tuple(problems))


def parse_rule_group(text: str) -> RuleGroup:
    """One group by itself, as the configuration API takes it. Raises `InvalidArgument`."""
    return _group(decode(text, _GROUP, strict=True))


def _group(read: Decoded) -> RuleGroup:
    offset = read.values.get("query_offset")
    delay = read.values.get("evaluation_delay")
    if offset is not None and delay is not None and offset != delay:
        raise InvalidArgument("query_offset and evaluation_delay must be the same when both are set")
    return RuleGroup(
        name=read.get("name", ""),
        rules=tuple(map(_rule, read.get("rules", []))),
        interval_ms=read.get("interval", 0),
        query_offset_ms=delay if offset is None else offset,
        limit=read.get("limit", 0),
        labels=read.get("labels", {}),
        source_tenants=tuple(read.get("source_tenants", [])),
        align_evaluation_time_on_interval=read.get("align_evaluation_time_on_interval", False),
    )


def _rule(read: Decoded) -> Rule:
    return Rule(
        record=read.get("record", ""),
        alert=read.get("alert", ""),
        expr=read.get("expr", ""),
        for_ms=read.get("for", 0),
        keep_firing_for_ms=read.get("keep_firing_for", 0),
        labels=read.get("labels", {}),
        annotations=read.get("annotations", {}),
        positions={key: at for key, at in read.positions.items() if key in ("record", "alert", "expr")},
    )
