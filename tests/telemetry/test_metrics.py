"""Registries, tallies and merged expositions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from mimir_ray.telemetry.federation import merge
from mimir_ray.telemetry.metrics import DURATION_BUCKETS, Tally, expose, on_scrape, process_registry


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_process_exposes_itself_and_its_build() -> None:
    text = expose(process_registry()).decode()
    for name in (
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_memory_map_areas ",
        "cortex_build_info{",
    ):
        assert f"\n{name}" in text


def test_registries_are_independent() -> None:
    one, other = process_registry(), process_registry()
    Tally(one, "x_total", "x").cell().value += 1
    assert b"x_total" not in expose(other)


def test_counters_have_no_created_series() -> None:
    registry = process_registry()
    Counter("requests", "r", registry=registry).inc()
    assert b"_created" not in expose(registry)


def test_a_tally_shows_what_was_added_to_its_cells() -> None:
    registry = CollectorRegistry()
    tally = Tally(registry, "samples_total", "s", ["user"])
    cell = tally.cell("a")
    cell.value += 5
    tally.cell("b").value += 1
    assert tally.cell("a") is cell
    assert registry.get_sample_value("samples_total", {"user": "a"}) == 5
    tally.remove("a")
    assert registry.get_sample_value("samples_total", {"user": "a"}) is None
    assert registry.get_sample_value("samples_total", {"user": "b"}) == 1


def test_a_tally_without_labels_shows_zero_from_the_start() -> None:
    registry = CollectorRegistry()
    Tally(registry, "samples_total", "s")
    assert registry.get_sample_value("samples_total") == 0


def test_families_of_a_callback_are_asked_for_at_every_scrape() -> None:
    registry, state = CollectorRegistry(), [1]

    def families() -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("series", "s", value=state[0])]

    on_scrape(registry, families)
    assert registry.get_sample_value("series") == 1
    state[0] = 2
    assert registry.get_sample_value("series") == 2


def test_families_of_several_processes_stand_together_with_one_head() -> None:
    registry = CollectorRegistry()
    Counter("a", "the a", registry=registry).inc()
    Histogram("h", "the h", buckets=DURATION_BUCKETS, registry=registry).observe(0.2)
    text = expose(registry)
    merged = merge({"i-0": text, "i-1": text}).decode()
    assert merged.count("# HELP a_total") == merged.count("# TYPE a_total counter") == merged.count("# TYPE h ") == 1
    assert 'h_bucket{le="0.25",pod="i-1"} 1.0' in merged
    assert 'a_total{pod="i-0"} 1.0\na_total{pod="i-1"} 1.0\n' in merged
    names = [line.split("{")[0].split("_")[0] for line in merged.splitlines() if not line.startswith("#")]
    assert names == sorted(names)


def test_a_family_that_only_a_later_process_has_is_there() -> None:
    merged = merge({"a": b"x 1\n", "b": b"# TYPE y gauge\ny 2\nx 3\n"})
    assert merged == b'x{pod="a"} 1\nx{pod="b"} 3\n# TYPE y gauge\ny{pod="b"} 2\n'


def test_a_sample_that_has_the_label_keeps_it() -> None:
    assert merge({"a": 'x{pod="p",z="1"} 1'}) == b'x{pod="p",z="1"} 1\n'


def test_a_label_value_that_looks_like_the_label_is_not_taken_for_it() -> None:
    text = 'x{a="},pod=\\"q\\","} 1\nx{b="pod="} 2\nx{tripod="3"} 3'
    assert merge({"p": text}).decode().splitlines() == [
        'x{a="},pod=\\"q\\",",pod="p"} 1',
        'x{b="pod=",pod="p"} 2',
        'x{tripod="3",pod="p"} 3',
    ]


def test_quoted_names_timestamps_and_trailing_commas_pass() -> None:
    text = '# TYPE "my.metric" counter\n{"my.metric",a="b",} 1 1700000000000\ny{} 2\nz{a="b",} NaN'
    assert merge({"p": text}).decode().splitlines() == [
        '# TYPE "my.metric" counter',
        '{"my.metric",a="b",pod="p"} 1 1700000000000',
        'y{pod="p"} 2',
        'z{a="b",pod="p"} NaN',
    ]


def test_lines_that_are_no_samples_and_comments_are_left_out() -> None:
    assert merge({"p": "# EOF\n# a comment\n\nx\n}{ 1\nok 1\n"}) == b'ok{pod="p"} 1\n'


def test_nothing_merges_to_nothing() -> None:
    assert merge({}) == merge({"a": b""}) == b""


def test_instances_are_escaped() -> None:
    assert merge({'a"\\\n': "x 1"}) == b'x{pod="a\\"\\\\\\n"} 1\n'


values = st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["i-0", "i-1", "i-2"]), values, min_size=1))
def test_merging_keeps_every_sample_and_adds_only_the_label(by_instance: dict[str, dict[str, float]]) -> None:
    texts = {}
    expected = {}
    for instance, cells in by_instance.items():
        registry = CollectorRegistry()
        tally = Tally(registry, "x_total", "x", ["user"])
        for user, value in cells.items():
            tally.cell(user).value += value
            expected["x_total", frozenset({("user", user), ("pod", instance)})] = value
        texts[instance] = expose(registry)
    assert samples(merge(texts)) == expected
