"""Hypothesis strategies for the nouns of the model."""

from __future__ import annotations

from hypothesis import strategies as st

from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.series import STALE_NAN

from .sources import ListSource

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=6)
_FEW_VALUES = st.sampled_from(["a", "b", "c", "10", "ä"])


def label_values() -> st.SearchStrategy[str]:
    """Few values, so that series share them, and sometimes any text that is UTF-8."""
    return _FEW_VALUES | _TEXT


def label_names() -> st.SearchStrategy[str]:
    """Few names, and sometimes any that need no quotes."""
    return st.sampled_from(["a", "b", "job", "le"]) | st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True)


def metric_names() -> st.SearchStrategy[str]:
    """Few names, and sometimes any that need no quotes."""
    return st.sampled_from(["m", "up", "a:b"]) | st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,5}", fullmatch=True)


@st.composite
def label_sets(draw: st.DrawFn, named: bool = True) -> Labels:
    """A label set, with a metric name unless `named` is False."""
    pairs = draw(st.dictionaries(label_names(), label_values(), max_size=4))
    if named:
        pairs[METRIC_NAME] = draw(metric_names())
    return labels_of(pairs)


def sample_values(stale: bool = True) -> st.SearchStrategy[float]:
    """Doubles of every kind; staleness markers, too, unless told not to."""
    plain = st.floats() | st.integers(-5, 5).map(float)
    return plain | st.just(STALE_NAN) if stale else plain


@st.composite
def points(
    draw: st.DrawFn, mint: int = -100_000, maxt: int = 1_000_000, max_size: int = 30, stale: bool = True
) -> list[tuple[int, float]]:
    """(time in ms, value) ascending by time, each time once."""
    times = draw(st.lists(st.integers(mint, maxt), unique=True, max_size=max_size))
    return [(time, draw(sample_values(stale))) for time in sorted(times)]


def series_lists(
    max_size: int = 8, stale: bool = True
) -> st.SearchStrategy[list[tuple[Labels, list[tuple[int, float]]]]]:
    """Series with their points, labels unique."""
    one = st.tuples(label_sets(), points(stale=stale))
    return st.lists(one, max_size=max_size, unique_by=lambda series: series[0])


def list_sources(max_size: int = 8, stale: bool = True) -> st.SearchStrategy[ListSource]:
    """A source with few series."""
    return series_lists(max_size, stale).map(ListSource)
