"""Verdicts of RE2 that are kept: the same as new ones, and asked for once."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mimir_ray.model.matchers import Matcher, MatchType, compile_regex
from mimir_ray.model.regex_automaton import automaton_of
from mimir_ray.model.regex_verdicts import RegexVerdicts, add_judged, find_judged

VALUES = st.sets(st.binary(max_size=3) | st.sampled_from([b"a" * n for n in range(12)]), max_size=12)


class Values:
    """Values in one buffer, and a judge that remembers what it was asked."""

    def __init__(self, values: list[bytes]) -> None:
        cuts = np.concatenate(([0], np.cumsum([len(one) for one in values]))).astype(np.int64)
        self.data, self.starts, self.ends = np.frombuffer(b"".join(values), np.uint8), cuts[:-1].copy(), cuts[1:].copy()
        self.asked: list[bytes] = []

    def judge(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        values = [self.data[a:b].tobytes() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        self.asked += values
        return np.array([len(one) % 2 == 1 for one in values], np.bool_)

    def accepted(self, verdicts: RegexVerdicts, pattern: str = "p") -> list[bool]:
        return verdicts.accepted(pattern, self.data, self.starts, self.ends, self.judge).tolist()


@settings(deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_each_value_is_judged_once(groups: list[set[bytes]]) -> None:
    heard: list[tuple[int, int]] = []
    verdicts = RegexVerdicts(observe=lambda requests, hits: heard.append((requests, hits)))
    known: set[bytes] = set()
    for group in groups:
        values = sorted(group)
        some = Values(values)
        assert some.accepted(verdicts) == [len(one) % 2 == 1 for one in values]
        assert some.asked == [one for one in values if one not in known]
        assert heard.pop() == (len(values), len(group & known))
        known |= group


@settings(deadline=None)
@given(VALUES, VALUES)
def test_judged_strings_are_found_as_a_dictionary_finds_them(kept: set[bytes], wanted: set[bytes]) -> None:
    strings, values = Values(sorted(kept)), Values(sorted(wanted))
    arena, cuts = np.empty(len(strings.data), np.uint8), np.zeros(len(kept) + 1, np.int64)
    slots = np.zeros(32, np.int32)
    add_judged(strings.data, strings.starts, strings.ends, 1, 2, 0, arena, cuts, slots)
    found = np.empty(len(wanted), np.int64)
    missing = find_judged(values.data, values.starts, values.ends, 1, 2, arena, cuts, slots, found)
    numbers = {value: number for number, value in enumerate(sorted(kept))}
    assert found.tolist() == [numbers.get(value, -1) for value in sorted(wanted)]
    assert missing == len(wanted - kept)


def test_patterns_that_nobody_asks_for_go_when_there_is_no_room() -> None:
    verdicts = RegexVerdicts(bytes_max=20_000)
    for number in range(10):
        Values([b"%d-%d" % (number, n) for n in range(100)]).accepted(verdicts, f"p{number}")
        assert verdicts.bytes <= 20_000
    assert verdicts.evicted > 0
    last = Values([b"9-%d" % n for n in range(100)])
    last.accepted(verdicts, "p9")
    assert not last.asked
    first = Values([b"0-%d" % n for n in range(100)])
    first.accepted(verdicts, "p0")
    assert len(first.asked) == 100
    nothing = RegexVerdicts(bytes_max=0)
    assert first.accepted(nothing) == [len(b"0-%d" % n) % 2 == 1 for n in range(100)]
    assert nothing.bytes == 0


def test_who_comes_second_waits_for_the_first_one() -> None:
    verdicts = RegexVerdicts()
    inside, go_on = threading.Event(), threading.Event()
    slow, quick = Values([b"a", b"bb"]), Values([b"a", b"bb"])
    judge = slow.judge

    def wait(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside.set()
        go_on.wait(30)
        return judge(starts, ends)

    slow.judge = wait  # type: ignore[method-assign]
    threads = [threading.Thread(target=one.accepted, args=(verdicts,)) for one in (slow, quick)]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert (slow.asked, quick.asked) == ([b"a", b"bb"], [])


def test_matchers_ask_only_for_what_has_no_tables() -> None:
    heard: list[tuple[int, int]] = []
    verdicts = RegexVerdicts(observe=lambda requests, hits: heard.append((requests, hits)))
    texts = [f"host-{n}".encode() for n in range(100)] + [b"\xff-1"]
    values = Values(texts)
    for pattern in ("host-.*[13]", "\\bhost-.*[13]\\b"):
        matcher = Matcher(MatchType.REGEX, "host", pattern)
        for _ in range(2):
            found = matcher.accepted_values(values.data, values.starts, values.ends, verdicts)
            wanted = [compile_regex(pattern)(text.decode("utf-8", "replace")) is not None for text in texts[:-1]]
            assert found.tolist() == [*wanted, False]
    assert automaton_of("\\bhost-.*[13]\\b") is None
    assert heard == [(101, 0), (101, 101)]
