"""The caches that all of a process' queries share."""

from __future__ import annotations

from mimir_ray.model.matchers import compile_regex
from mimir_ray.model.regex_automaton import automaton_of
from mimir_ray.telemetry.caches import CacheSource, of_function

from .operators.functions_labels import compiled, replaced
from .plan.fragment import unpack


def shared_caches() -> dict[str, CacheSource]:
    """By name; each has a bound of entries where it is declared."""
    return {
        "regexes": of_function(compile_regex),
        "regex-tables": of_function(automaton_of),
        "label-replace-regexes": of_function(compiled),
        "label-replace-values": of_function(replaced),
        "fragment-plans": of_function(unpack),
    }
