"""What an operator writes about one tenant's requests: relabelling, blocked and rate-limited queries.

These are settings, as they stand in YAML; the roles that apply them compile them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimir_ray.config.setting import setting
from mimir_ray.config.units import Duration
from mimir_ray.model.matchers import InvalidRegex
from mimir_ray.model.relabel import rule_problem

RelabelAction = Literal[
    "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop", "labelkeep",
    "lowercase", "uppercase",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RelabelConfig:
    """One relabelling rule in Prometheus' form (prometheus/docs/configuration: relabel_config)."""

    source_labels: tuple[str, ...] = setting((), help="Labels whose values are joined by the separator.")
    separator: str = setting(";", help="Put between the joined values.")
    regex: str = setting("(.*)", help="What the joined values must match as a whole.")
    modulus: int = setting(0, minimum=0, help="For hashmod: the hash is taken modulo this number.")
    target_label: str = setting("", help="The label that is written.")
    replacement: str = setting("$1", help="The value to write; $1, ${name} stand for groups of the regex.")
    action: RelabelAction = setting("replace", help="What to do.")

    def problems(self) -> Iterator[tuple[str, str]]:
        try:
            # Names are judged by the wider rule; what a tenant's scheme refuses is refused series by series.
            problem = rule_problem(self, utf8=True)
        except InvalidRegex as error:
            yield "regex", str(error)
            return
        if problem:
            yield "", problem


@dataclass(frozen=True, slots=True)
class BlockedQuery:
    """Queries that are refused. An empty pattern with a time condition blocks by the condition alone."""

    pattern: str = setting("", help="The PromQL expression, as the printer formats it.")
    regex: bool = setting(False, help="Whether the pattern is a regular expression.")
    reason: str = setting("", help="Told to those whose query is refused.")
    time_range_longer_than: Duration = setting(
        Duration(0), help="Block only where the time range is longer than this; 0 blocks any."
    )
    step_size_shorter_than: Duration = setting(
        Duration(0), help="Block only where the step is shorter than this; 0 blocks any."
    )


@dataclass(frozen=True, slots=True)
class LimitedQuery:
    """A query that may run once in a while."""

    query: str = setting("", help="The PromQL expression, literally.")
    allowed_frequency: Duration = setting(Duration(0), help="The least time between two runs.")


@dataclass(frozen=True, slots=True)
class ParameterMatch:
    """What one URL parameter must be."""

    value: str = setting("", help="The value.")
    is_regexp: bool = setting(False, help="Whether the value is a regular expression.")


@dataclass(frozen=True, slots=True)
class BlockedRequest:
    """HTTP requests that are refused; what is empty matches anything."""

    path: str = setting("", help="The path, with its leading slash.")
    method: str = setting("", help="The HTTP method.")
    query_params: dict[str, ParameterMatch] = setting({}, help="Parameters that must all match.")
