"""Rules rewrite many label sections together as they do each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.roles.distributor import label_rules, section_rows
from mimir_ray.roles.distributor.label_rules import Form, LabelRules
from mimir_ray.roles.distributor.section_rows import read_rows, write_sections
from mimir_ray.wire.protobuf import MalformedProtobuf, RawLabel, encode_labels, parse_labels
from tests.roles.distributor.fakes import TENANT


def laid_out(sections: list[bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Sections with something between them."""
    data, starts = b"", []
    for one in sections:
        data += b"??"
        starts.append(len(data))
        data += one
    bounds = np.array(starts, np.int64)
    return data, bounds, bounds + np.array([len(one) for one in sections], np.int64)


def rewritten(rules: LabelRules, sections: list[bytes]) -> list[bytes]:
    data, starts, ends = rules.rewrite(*laid_out(sections))
    return [data[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def one_by_one(rules: LabelRules, sections: list[bytes]) -> list[bytes]:
    return [encode_labels(rules.canonical(parse_labels(one, 0, len(one))) or ()) for one in sections]


RULES = (
    RelabelConfig(source_labels=("a",), target_label="c", regex="x(.*)"),
    RelabelConfig(source_labels=("__meta_tenant_id", "b"), target_label="t", separator="/"),
    RelabelConfig(source_labels=("b",), regex="drop.*", action="drop"),
    RelabelConfig(regex="(a.)", replacement="m_$1", action="labelmap"),
    RelabelConfig(regex="ab|t", action="labeldrop"),
)
_names = st.sampled_from([b"a", b"ab", b"ac", b"b", b"c", b"replica", b"__meta_tenant_id", "é".encode(), b"\xff", b""])
_values = st.sampled_from([b"", b"x", b"xy", b"drop me", "ü".encode(), b"\xfe", b"z" * 130, b"x" * 300])
_plain = st.lists(st.tuples(_names, _values), max_size=8).map(encode_labels)
_odd = st.sampled_from(
    [
        b"\n\x03\n\x01a",  # no value
        b"\n\x06\x12\x01x\n\x01a",  # the value first
        b"\n\x80\x00",  # a length that is longer than needed, of nothing
        b"\n\x06\n\x01b\x12\x01x" + b"\n\x08\n\x01a\x12\x01x\x18\x01",  # a field that nobody knows
        b"".join(encode_labels([(b"l%d" % at, b"x")]) for at in range(section_rows.LABELS_MAX + 1)),
    ]
)


@given(
    st.lists(_plain | _odd, min_size=1, max_size=20),
    st.lists(st.sampled_from(RULES), max_size=4).map(tuple),
    st.sampled_from([(), ("a",), ("b", "t")]),
    st.sampled_from(["error", "truncate", "drop"]),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_sections_become_together_what_each_becomes(
    sections: list[bytes], relabel: tuple[RelabelConfig, ...], dropped: tuple[str, ...], strategy: str, replica: bool
) -> None:
    limits = Limits(
        metric_relabel_configs=relabel,
        drop_labels=dropped,
        label_value_length_over_limit_strategy=strategy,  # type: ignore[arg-type]
        max_label_value_length=128,
        ha_replica_label="replica",
    )
    rules = LabelRules(TENANT, limits, Form(one_replica=replica))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_rules, "COLUMNS_MIN", 0)
        assert rewritten(rules, sections) == one_by_one(rules, sections)


def test_few_and_many_sections_come_out_alike() -> None:
    rules = LabelRules(TENANT, Limits(metric_relabel_configs=RULES))
    sections = [encode_labels([(b"b", b"%d" % at), (b"a", b"x%d" % (at % 7))]) for at in range(300)]
    assert rewritten(rules, sections) == one_by_one(rules, sections)
    assert rewritten(rules, sections[:1]) == one_by_one(rules, sections[:1])
    assert rewritten(rules, []) == []


def test_more_names_than_columns_have_room_for_are_rewritten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = LabelRules(TENANT, Limits(metric_relabel_configs=RULES))
    sections = [encode_labels([(b"n%d" % at, b"v"), (b"a", b"xy")]) for at in range(40)]
    monkeypatch.setattr(section_rows, "NAMES_MAX", 16)
    assert rewritten(rules, sections) == one_by_one(rules, sections)


def test_a_section_that_is_no_protobuf_is_an_error() -> None:
    rules = LabelRules(TENANT, Limits(metric_relabel_configs=RULES))
    with pytest.raises(MalformedProtobuf):
        rules.rewrite(*laid_out([encode_labels([(b"a", b"x")])] * 20 + [b"\n\x7f"]))


_text = st.text("aé", min_size=1, max_size=2).map(str.encode)


@given(st.lists(st.lists(st.tuples(_text, st.text("xü", max_size=3).map(str.encode)), max_size=5), max_size=8))
@settings(deadline=None)
def test_labels_that_go_in_come_out_sorted(series: list[list[RawLabel]]) -> None:
    data, starts, ends = laid_out([encode_labels(labels) for labels in series])
    rows, odd = read_rows(np.frombuffer(data, np.uint8), starts, ends, 2, merged=True)
    assert not odd.any()
    sections, offsets = write_sections(rows, (b"a",))
    wanted = [sorted(({n: v for n, v in labels if v}).items()) for labels in series]
    assert sections.tobytes() == b"".join(encode_labels(pair for pair in one if pair[0] != b"a") for one in wanted)
    assert np.diff(offsets).tolist() == [len(encode_labels(p for p in one if p[0] != b"a")) for one in wanted]
