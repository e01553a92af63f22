"""Every rule for series, samples and metadata, with its id and text."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.encoding.hashing import series_token
from mimir_ray.errors import ClientError
from mimir_ray.model.metadata import Metadata
from mimir_ray.roles.distributor import errors, validation
from mimir_ray.wire.protobuf import RawLabel, encode_labels
from tests.roles.distributor.fakes import canonical_labels

CONTACT = "or contact your service administrator."


def judge(labels: list[RawLabel], limits: Limits | None = None) -> str:
    """The error's text, or nothing."""
    limits = limits or Limits()
    try:
        validation.validate_labels(canonical_labels(labels, limits), limits)
    except ClientError as error:
        return str(error)
    return ""


def test_a_sound_series_passes() -> None:
    assert judge([(b"__name__", b"a:b_c"), (b"job", b"\xc3\xa4 b")]) == ""


def test_a_series_needs_a_metric_name() -> None:
    text = "received series has no metric name (err-mimir-missing-metric-name)"
    assert judge([(b"job", b"a")]) == text
    assert judge([(b"__name__", b""), (b"job", b"a")]) == text


def test_a_metric_name_must_be_valid() -> None:
    text = "received a series with invalid metric name: '{}' (err-mimir-metric-name-invalid)"
    assert judge([(b"__name__", b"a-b")]) == text.format("a-b")
    assert judge([(b"__name__", "ä-b".encode())]) == text.format("-b (non-ascii characters removed)")


def test_under_the_utf8_scheme_names_are_any_utf8() -> None:
    limits = Limits(name_validation_scheme="utf8")
    assert judge([(b"__name__", "ä-b".encode()), (b"c.d", b"e")], limits) == ""
    assert "err-mimir-metric-name-invalid" in judge([(b"__name__", b"\xff")], limits)
    assert "err-mimir-label-invalid" in judge([(b"__name__", b"a"), (b"\xff", b"b")], limits)


def test_labels_are_counted() -> None:
    labels = [(b"__name__", b"a"), *((f"l{at}".encode(), b"v") for at in range(2))]
    assert judge(labels, Limits(max_label_names_per_series=3)) == ""
    assert judge(labels, Limits(max_label_names_per_series=2)) == (
        "received a series whose number of labels exceeds the limit (actual: 3, limit: 2) "
        'series: \'a{l0="v", l1="v"}\' (err-mimir-max-label-names-per-series). To adjust the related per-tenant '
        f"limit, configure -validation.max-label-names-per-series, {CONTACT}"
    )


def test_a_long_series_is_cut_with_an_ellipsis() -> None:
    labels = [(b"__name__", b"a" * 300), (b"b", b"c")]
    assert f"series: '{'a' * 200}\u2026'" in judge(labels, Limits(max_label_names_per_series=1))


def test_info_series_have_a_larger_limit() -> None:
    labels = [(b"__name__", b"a_info"), *((f"l{at}".encode(), b"v") for at in range(3))]
    assert judge(labels, Limits(max_label_names_per_series=2, max_label_names_per_info_series=4)) == ""
    assert judge(labels, Limits(max_label_names_per_series=2, max_label_names_per_info_series=3)) == (
        "received an info series whose number of labels exceeds the limit (actual: 4, limit: 3) series: "
        '\'a_info{l0="v", l1="v", l2="v"}\' (err-mimir-max-label-names-per-info-series). To adjust the related '
        f"per-tenant limit, configure -validation.max-label-names-per-info-series, {CONTACT}"
    )


def test_a_label_name_must_be_valid() -> None:
    assert judge([(b"__name__", b"a"), (b"b-c", b"d")]) == (
        "received a series with an invalid label: 'b-c' series: 'a{b-c=\"d\"}' (err-mimir-label-invalid)"
    )
    assert "err-mimir-label-invalid" in judge([(b"__name__", b"a"), (b"", b"d")])


def test_a_label_name_must_be_short_enough() -> None:
    assert judge([(b"__name__", b"a"), (b"long_name", b"d")], Limits(max_label_name_length=8)) == (
        "received a series whose label name length exceeds the limit, label: 'long_name' series: 'a{long_name=\"d\"}' "
        "(err-mimir-label-name-too-long). To adjust the related per-tenant limit, "
        f"configure -validation.max-length-label-name, {CONTACT}"
    )


def test_a_label_value_must_be_utf8() -> None:
    assert judge([(b"__name__", b"a"), (b"b", b"c\xff")]) == (
        "received a series with invalid value in label 'b': 'c\ufffd' metric: 'a' (err-mimir-label-value-invalid)"
    )


def test_a_label_value_must_be_short_enough() -> None:
    assert judge([(b"__name__", b"a"), (b"b", b"cccc")], Limits(max_label_value_length=3)) == (
        "received a series whose label value length exceeds the limit, label: 'b', value: 'cccc' (truncated) "
        "series: 'a{b=\"cccc\"}' (err-mimir-label-value-too-long). To adjust the related per-tenant limit, "
        f"configure -validation.max-length-label-value, {CONTACT}"
    )


@pytest.mark.parametrize(("strategy", "kept"), [("truncate", b"v" * 9), ("drop", b"")])
def test_long_label_values_may_give_way_to_a_hash(strategy: str, kept: bytes) -> None:
    limits = Limits(max_label_value_length=80, label_value_length_over_limit_strategy=strategy)  # type: ignore[arg-type]
    value = b"v" * 81
    digest = hashlib.blake2b(value, digest_size=32).hexdigest().encode()
    ((_, found),) = canonical_labels([(b"a", value)], limits)
    assert found == kept + b"(hash:" + digest + b")"
    assert judge([(b"__name__", b"a"), (b"b", value)], limits) == ""


def test_label_names_must_not_repeat() -> None:
    assert judge([(b"__name__", b"a"), (b"b", b"1"), (b"c", b"2"), (b"b", b"3")]) == (
        'received a series with duplicate label name, label: \'b\' series: \'a{b="1", b="3", c="2"}\' '
        "(err-mimir-duplicate-label-names)"
    )


def test_the_first_failing_rule_wins() -> None:
    broken = [(b"__name__", b"a-b"), (b"c-d", b"\xff")]
    assert "metric-name-invalid" in judge(broken)
    assert "label-invalid" in judge([(b"__name__", b"a"), *broken[1:]])


def test_labels_are_sorted_and_empty_values_dropped() -> None:
    raw = [(b"b", b"1"), (b"", b""), (b"a", b""), (b"__name__", b"x")]
    assert canonical_labels(raw, Limits()) == [(b"__name__", b"x"), (b"b", b"1")]


def test_drop_labels_are_dropped() -> None:
    assert canonical_labels([(b"a", b"1"), (b"b", b"2")], Limits(drop_labels=("b",))) == [(b"a", b"1")]


def test_a_sample_in_the_future_names_the_grace_period() -> None:
    error = validation.sample_error(17, [(b"__name__", b"a"), (b"b", b"c")], too_new=True)
    assert str(error) == (
        "received a sample whose timestamp is too far in the future, timestamp: 17 series: 'a' "
        "(err-mimir-too-far-in-future). To adjust the related per-tenant limit, "
        f"configure -validation.create-grace-period, {CONTACT}"
    )


def test_a_sample_in_the_past_names_the_grace_period() -> None:
    error = validation.sample_error(17, [(b"__name__", b"a")], too_new=False)
    assert str(error) == (
        "received a sample whose timestamp is too far in the past, timestamp: 17 series: 'a' "
        "(err-mimir-too-far-in-past). To adjust the related per-tenant limit, "
        f"configure -validation.past-grace-period, {CONTACT}"
    )


def test_the_past_grace_period_counts_from_the_out_of_order_window() -> None:
    limits = Limits(past_grace_period=1000, out_of_order_time_window=500, creation_grace_period=10)  # type: ignore[arg-type]
    assert validation.sample_bounds(limits, 10_000) == (8500, 10_010)
    assert validation.sample_bounds(Limits(), 0)[0] == -(1 << 63)


def test_metadata_needs_a_name() -> None:
    with pytest.raises(errors.MetadataWithoutName) as caught:
        validation.clean_metadata(Metadata("", "gauge"), Limits())
    assert str(caught.value) == (
        "received a metric metadata with no metric name (err-mimir-metadata-missing-metric-name)"
    )
    validation.clean_metadata(Metadata("", "gauge"), Limits(enforce_metadata_metric_name=False))


def test_metadata_names_and_units_must_be_short_enough() -> None:
    with pytest.raises(errors.MetadataNameTooLong) as caught:
        validation.clean_metadata(Metadata("abcd", "gauge"), Limits(max_metadata_length=3))
    assert str(caught.value) == (
        "received a metric metadata whose metric name length exceeds the limit, metric name: 'abcd' "
        "(err-mimir-metric-name-too-long). To adjust the related per-tenant limit, "
        f"configure -validation.max-metadata-length, {CONTACT}"
    )
    with pytest.raises(errors.MetadataUnitTooLong) as unit:
        validation.clean_metadata(Metadata("a", "gauge", unit="abcd"), Limits(max_metadata_length=3))
    assert str(unit.value) == (
        "received a metric metadata whose unit name length exceeds the limit, unit: 'abcd' metric name: 'a' "
        "(err-mimir-unit-too-long). To adjust the related per-tenant limit, "
        f"configure -validation.max-metadata-length, {CONTACT}"
    )


def test_a_long_help_text_is_cut_between_characters() -> None:
    assert validation.clean_metadata(Metadata("a", "gauge", "abä"), Limits(max_metadata_length=3)).help == "ab"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10000.0, "10000"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (0.5, "0.5"),
        (1e-5, "1e-05"),
        (0.0, "0"),
        (123456.0, "123456"),
    ],
)
def test_rates_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert errors.format_number(value) == text


_names = st.sampled_from([b"__name__", b"a", b"ab", b"b", b"a-b", b"", b"0a", "ä".encode(), b"x" * 9])
_values = st.sampled_from([b"v", b"", b"a:b", b"\xff", "ä".encode(), b"w" * 9, b"y" * 200])


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.tuples(_names, _values), max_size=4), st.booleans())
def test_the_kernel_waves_through_only_what_the_rules_accept(labels: list[RawLabel], is_sorted: bool) -> None:
    if is_sorted:
        labels = sorted(dict(labels).items())
    limits = Limits(max_label_names_per_series=3, max_label_name_length=8, max_label_value_length=199)
    section = encode_labels(labels)
    data = np.frombuffer(section + b"\0", np.uint8)
    good, tokens = validation.judge_sections(
        data, np.zeros(1, np.int64), np.array([len(section)]), validation.token_seed("tenant"), limits
    )
    canonical = canonical_labels(labels, limits)
    if good[0]:
        assert judge(labels, limits) == "" and canonical == labels
        text = [(name.decode(), value.decode()) for name, value in labels]
        assert int(tokens[0]) == series_token("tenant", text) == validation.series_token("tenant", labels)
    else:
        assert judge(labels, limits) or canonical != labels, "a sound series must be waved through"


@given(
    st.binary(min_size=1, max_size=6)
    | st.text(min_size=1, max_size=4).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
@settings(deadline=None, max_examples=500)
def test_the_kernel_knows_utf8(value: bytes) -> None:
    section = encode_labels([(b"__name__", b"a"), (b"b", value)])
    good, _ = validation.judge_sections(
        np.frombuffer(section, np.uint8), np.zeros(1, np.int64), np.array([len(section)]), 0, Limits()
    )
    try:
        value.decode()
    except UnicodeDecodeError:
        assert not good[0]
    else:
        assert good[0]


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_the_kernel_survives_arbitrary_bytes(section: bytes) -> None:
    data = np.frombuffer(section + b"\0", np.uint8)
    good, _ = validation.judge_sections(data, np.zeros(1, np.int64), np.array([len(section)]), 0, Limits())
    if good[0]:
        assert len(section) > 12


def test_lengths_that_are_longer_than_needed_are_not_canonical() -> None:
    section = b"\x0a\x8d\x00\x0a\x08__name__\x12\x01a"
    good, _ = validation.judge_sections(
        np.frombuffer(section, np.uint8), np.zeros(1, np.int64), np.array([len(section)]), 0, Limits()
    )
    assert not good[0]
