"""Strings in queries whose bytes are no UTF-8."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ray.errors import ClientError
from mimir_ray.model.result import Vector
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.source import SeriesSource
from mimir_ray.promql.syntax.errors import ParseError
from mimir_ray.testing.promql_script_run import ListStorage
from mimir_ray.wire.query_json import encode_value


@pytest.fixture
def source() -> SeriesSource:
    storage = ListStorage()
    storage.append((("__name__", "m"), ("a", "b")), np.array([1000]), np.array([1.0]))
    return storage.source()


def test_broken_bytes_stay_what_they_are_and_leave_as_replacement_characters(source: SeriesSource) -> None:
    answer = Engine().instant(r'label_replace(m, "c", "\xff$0", "a", "b")', source, 1000).value
    assert isinstance(answer, Vector)
    assert answer.labels.to_labels() == [(("__name__", "m"), ("a", "b"), ("c", "\udcffb"))]
    assert '"c":"\ufffdb"' in encode_value(answer).decode()


@pytest.mark.parametrize(
    "query",
    [
        r'label_replace(m, "\xff", "", "a", "b")',
        r'label_replace(m, "c", "", "a", "\xff")',
        r'label_join(m, "\xff", "", "a")',
        r'count_values("\xff", m)',
        r'sum by ("\xff") (m)',
    ],
)
def test_broken_bytes_are_neither_label_names_nor_patterns(source: SeriesSource, query: str) -> None:
    with pytest.raises(ClientError, match="invalid"):
        Engine().instant(query, source, 1000)


@pytest.mark.parametrize("pattern", [r"\xff", r"\xff|b", r"\xff.*", r"\xff.*b?"])
def test_a_matcher_refuses_a_broken_pattern(source: SeriesSource, pattern: str) -> None:
    with pytest.raises(ParseError, match="invalid UTF-8"):
        Engine().instant(f'm{{a=~"{pattern}"}}', source, 1000)


def test_broken_bytes_equal_no_value(source: SeriesSource) -> None:
    assert not len(Engine().instant(r'm{a="\xff"}', source, 1000).value)
    assert len(Engine().instant(r'm{a!="\xff"}', source, 1000).value) == 1
