"""General regular expressions over the values of one label: automata, and RE2 value by value.

python benchmarks/model/bench_regexes.py [values]

`tables`: making the automaton of a pattern, once a process. `all values`: one call. `RE2`: what is done where a pattern
has no small tables. CPU milliseconds of one thread; the median of five, and of one for RE2.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from mimir_ray.model import matchers
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.regex_automaton import automaton_of

PATTERNS = (
    "host-.*[02468]:9100",
    "host-[0-9]{1,5}:9100",
    ".*(1234|4321).*",
    "(?i)HOST-1.*",
    "[a-z]+-\\d+(:\\d+)?",
    "(a+)+b|(.*)*b",
    "(.*a){12}",
    "(a|b)*a(a|b){20}",
    "\\bhost-1.*",
)


def timed(work: Callable[[], object], times: int) -> float:
    """ms of this thread's CPU."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return sorted(taken)[times // 2] * 1000


def main(count: int) -> None:
    values = [f"host-{number}:9100".encode() for number in range(count)]
    cuts = np.concatenate(([0], np.cumsum([len(value) for value in values]))).astype(np.int64)
    data = np.frombuffer(b"".join(values), np.uint8)
    starts, ends = cuts[:-1].copy(), cuts[1:].copy()
    Matcher(MatchType.REGEX, "x", "warm.*up").accepted_values(data, starts, ends)  # loads the kernel
    print(f"{count:,} values; CPU ms      {'tables':>8} {'states':>8} {'all values':>11} {'RE2':>9}")
    for pattern in PATTERNS:
        matcher = Matcher(MatchType.REGEX, "x", pattern)
        made = timed(lambda: automaton_of(pattern), 1)  # noqa: B023
        automaton = automaton_of(pattern)
        again = f"{'-':>11}"
        if automaton is not None:
            again = f"{timed(lambda: matcher.accepted_values(data, starts, ends), 5):11.2f}"  # noqa: B023
        fullmatch = matchers.compile_for_bytes(pattern).fullmatch
        alone = timed(lambda: [fullmatch(value) is not None for value in values], 1)  # noqa: B023
        states = "-" if automaton is None else len(automaton.accepting)
        print(f"{pattern:27} {made:8.2f} {states:>8} {again} {alone:9.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
