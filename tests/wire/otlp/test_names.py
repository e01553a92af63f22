"""OpenTelemetry's names under each translation strategy. Cases: what upstream documents and tests."""

from __future__ import annotations

import pytest

from mimir_ray.wire.otlp.names import Kind, Naming, UntranslatableName, unit_name

ESCAPED = Naming(suffixes=True)
SHORT = Naming()
UTF8 = Naming(suffixes=True, utf8=True)


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.duration", "s", "histogram", "http_server_duration_seconds"),
        ("system.io", "By/s", "counter", "system_io_bytes_per_second_total"),
        ("broken.metric.speed", "km/h", "gauge", "broken_metric_speed_km_per_hour"),
        ("active.request.count", "1", "counter", "active_request_count_total"),
        ("hw.gpu.memory.utilization", "1", "gauge", "hw_gpu_memory_utilization_ratio"),
        ("requests.total", "{requests}", "counter", "requests_total"),
        ("total.things", "", "counter", "things_total"),
        ("system.filesystem.usage", "By", "updown", "system_filesystem_usage_bytes"),
        ("seconds_of_day", "s", "gauge", "seconds_of_day"),
        ("1st.place", "", "gauge", "_1st_place"),
        ("a..b--c", "", "gauge", "a_b_c"),
        ("storage.filling.gradient", "m/{foo}", "gauge", "storage_filling_gradient_meters"),
        ("temperature", "%", "gauge", "temperature_percent"),
        ("x", "m/s", "summary", "x_meters_per_second"),
        ("x", "_/_", "gauge", "x"),
    ],
)
def test_names_get_their_unit_and_type(name: str, unit: str, kind: Kind, expected: str) -> None:
    assert ESCAPED.metric(name, unit, kind) == expected


def test_without_suffixes_only_characters_are_replaced() -> None:
    assert SHORT.metric("http.server--duration", "s", "histogram") == "http_server_duration"
    assert SHORT.metric("process__cpu:x", "s", "counter") == "process__cpu:x"
    assert SHORT.metric("2xx", "", "gauge") == "_2xx"


def test_with_utf8_names_stay_as_they_are() -> None:
    assert Naming(utf8=True).metric("http.server.duration", "s", "histogram") == "http.server.duration"
    assert UTF8.metric("http.server.duration", "s", "histogram") == "http.server.duration_seconds"
    assert UTF8.metric("jobs.total", "By/s", "counter") == "jobs_bytes_per_second_total"
    assert UTF8.metric("share_ratio", "1", "gauge") == "share_ratio"


@pytest.mark.parametrize("name", ["", "...", "日本"])
def test_a_name_of_which_nothing_is_left_is_refused(name: str) -> None:
    with pytest.raises(UntranslatableName):
        ESCAPED.metric(name, "", "gauge")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("http.method", "http_method"),
        ("9lives", "key_9lives"),
        ("_private", "key_private"),
        ("__reserved__", "__reserved__"),
        ("a--b", "a__b"),
        ("café", "caf_"),
    ],
)
def test_labels_are_made_of_letters_digits_and_underscores(name: str, expected: str) -> None:
    assert SHORT.label(name) == expected


def test_runs_of_underscores_are_one_where_the_tenant_wants_that() -> None:
    naming = Naming(label_preserve_underscores=False, label_underscore_sanitization=False)
    assert naming.label("a..b") == "a_b"
    assert naming.label("_a") == "_a"
    assert naming.label("__a..b__") == "__a_b__"


@pytest.mark.parametrize("name", ["", "..."])
def test_a_label_of_which_nothing_is_left_is_refused(name: str) -> None:
    with pytest.raises(UntranslatableName):
        SHORT.label(name)


def test_units_have_words() -> None:
    assert unit_name("By/s") == "bytes_per_second"
    assert unit_name("1") == ""
    assert unit_name("{requests}") == ""
    assert unit_name("requests/min") == "requests_per_min"
