"""What becomes of labels: relabelling, dropped labels and series, checks that are skipped; and what is remembered."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.errors import ClientError
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.distributor.canonical import sort_sections
from mimir_ray.roles.distributor.distributor import PushOutcome
from mimir_ray.roles.distributor.label_rules import FORMS, USUAL, Form, LabelRules
from mimir_ray.wire.protobuf import RawLabel, encode_labels
from mimir_ray.wire.remote_write import encode_write_request
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup


def named(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name} | labels)


def push(setup: Setup, *series: Labels | bytes, at: int = 0, form: Form = USUAL) -> PushOutcome:
    async def work() -> PushOutcome:
        body = encode_write_request([(labels, [(NOW_MS + at, 1.0)]) for labels in series])
        outcome = await setup.distributor.push(TENANT, body, form=form)
        await setup.distributor.drain()
        return outcome

    return asyncio.run(work())


def rule(**fields: object) -> RelabelConfig:
    return RelabelConfig(**fields)  # type: ignore[arg-type]


DROP_DOWN = rule(source_labels=("__name__",), regex="down", action="drop")
TENANT_LABEL = rule(source_labels=("__meta_tenant_id",), target_label="tenant")


def test_rules_are_applied_in_their_order_and_the_result_is_stored_sorted() -> None:
    rules = (
        TENANT_LABEL,
        rule(source_labels=("tenant", "job"), separator="/", target_label="a_path"),
        rule(regex="job", action="labeldrop"),
    )
    setup = Setup(metric_relabel_configs=rules)
    assert push(setup, named("up", job="x")).error is None
    assert push(setup, named("up", job="x"), at=1).error is None
    assert setup.only.series == [named("up", a_path="team-a/x", tenant="team-a")]
    assert len(setup.only.stored) == 2


def test_the_meta_label_is_gone_afterwards_whoever_set_it() -> None:
    setup = Setup(metric_relabel_configs=(rule(source_labels=("job",), target_label="__meta_x"),))
    push(setup, named("up", job="x", __meta_tenant_id="forged"))
    assert setup.only.series == [named("up", job="x", __meta_x="x")]


def test_relabelling_can_be_turned_off() -> None:
    setup = Setup(metric_relabel_configs=(DROP_DOWN,), metric_relabeling_enabled=False)
    push(setup, named("down"))
    assert setup.only.series == [named("down")]


def test_dropped_series_cost_no_error_and_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    setup, judged = Setup(metric_relabel_configs=(DROP_DOWN,)), []
    one = LabelRules.canonical
    monkeypatch.setattr(LabelRules, "canonical", lambda self, raw: (judged.append(raw), one(self, raw))[1])
    for at in range(3):
        outcome = push(setup, named("down"), named("up"), named("down", job="a"), at=at)
        assert (outcome.error, outcome.samples) == (None, 1)
    assert setup.only.series == [named("up")]
    assert len(judged) == 3
    assert (push(setup, named("down"), at=4), len(judged)) == (PushOutcome(), 3)
    assert setup.metric("cortex_distributor_samples_in_total", user=TENANT) == 10
    assert setup.metric("cortex_distributor_received_samples_total", user=TENANT) == 3


def test_series_that_were_dropped_are_stored_under_other_rules() -> None:
    setup = Setup(metric_relabel_configs=(DROP_DOWN,))
    push(setup, named("down"))
    setup.tenant_limits = Limits()
    push(setup, named("down"), at=1)
    assert setup.only.series == [named("down")]
    setup.tenant_limits = Limits(drop_labels=("job",))
    push(setup, named("down", job="x"), at=2)
    assert setup.only.series == [named("down")]


def test_other_limits_leave_the_cache_alone() -> None:
    setup = Setup()
    push(setup, named("up"))
    setup.tenant_limits = Limits(ingestion_rate=5.0)
    push(setup, named("up"), at=1)
    assert [len(batch.label_offsets) - 1 for call in setup.only.calls for batch in call] == [1, 0]


def test_the_result_is_validated() -> None:
    setup = Setup(metric_relabel_configs=(rule(regex="__name__", action="labeldrop"),))
    outcome = push(setup, named("up"), named("down", job="x"))
    assert outcome.error is not None and outcome.error.id == "missing-metric-name"
    reason = {"user": TENANT, "group": "", "reason": "missing_metric_name"}
    assert setup.metric("cortex_discarded_samples_total", **reason) == 1  # the other has no label left: not a word


def test_bytes_that_are_no_text_are_refused_not_relabelled() -> None:
    hashed = rule(source_labels=("a",), target_label="b", modulus=4, action="hashmod")
    setup = Setup(metric_relabel_configs=(hashed,))
    outcome = push(setup, encode_labels([(b"__name__", b"up"), (b"a", b"\xff")]))
    assert outcome.error is not None and outcome.error.id == "label-value-invalid"


_names = st.binary(min_size=1, max_size=3)
_labels = st.lists(st.tuples(_names, st.binary(max_size=3)), max_size=6)


@given(_labels, st.lists(_names, max_size=3))
@settings(deadline=None)
def test_labels_are_taken_off_as_a_loop_would(labels: list[RawLabel], removed: list[bytes]) -> None:
    section = np.frombuffer(encode_labels(labels) or b"\0", np.uint8)
    size = len(encode_labels(labels))
    out, starts, ends = sort_sections(section, np.zeros(1, np.int64), np.array([size]), removed)
    kept = sorted((one for one in labels if one[1] and one[0] not in removed), key=lambda pair: pair[0])
    assert out[starts[0] : ends[0]].tobytes() == encode_labels(kept)


# Names and values from an alphabet, so that rules meet them.
_text = st.text("ab", min_size=1, max_size=3)
_actions = st.sampled_from(
    [
        rule(source_labels=("a",), target_label="b"),
        rule(source_labels=("a", "b"), regex="a;(.*)", target_label="aa", replacement="x$1"),
        rule(regex="a+", action="labeldrop"),
        rule(source_labels=("b",), regex="bb.*", action="drop"),
        rule(source_labels=("aa",), target_label="a", action="uppercase"),
    ]
)


@given(
    st.lists(st.dictionaries(_text, _text, max_size=4), min_size=1, max_size=6),
    st.lists(_actions, max_size=3),
    st.sampled_from([(), ("a",), ("b", "bb")]),
)
@settings(deadline=None, max_examples=60)
def test_what_is_stored_is_what_the_rules_make_of_each_series(
    sent: list[dict[str, str]], rules: list[RelabelConfig], drop_labels: tuple[str, ...]
) -> None:
    setup = Setup(metric_relabel_configs=tuple(rules), drop_labels=drop_labels)
    series = [named("m", **labels) for labels in sent]
    for at in range(2):
        assert push(setup, *series, at=at).error is None
    wanted = set()
    for labels in series:
        made = LabelRules(TENANT, setup.tenant_limits).canonical([(n.encode(), v.encode()) for n, v in labels])
        if made:
            wanted.add(tuple((name.decode(), value.decode()) for name, value in made))
    assert set(setup.only.series) == wanted
    assert len(setup.only.series) == len(wanted)


# Checks that are skipped.


def test_forms_have_different_numbers() -> None:
    forms = [Form(one, other, third) for one in (False, True) for other in (False, True) for third in (False, True)]
    assert sorted(form.number for form in forms) == list(range(FORMS))
    assert USUAL.number == 0


def test_names_of_labels_are_not_judged_where_a_request_says_so() -> None:
    setup, odd = Setup(), labels_of({"__name__": "up", "a-b": "1"})
    for _ in range(2):
        refused = push(setup, odd)
        assert isinstance(refused.error, ClientError) and refused.error.id == "label-invalid"
        assert push(setup, odd, form=Form(any_names=True)).error is None
    assert setup.only.series == [odd]
    bad = push(setup, labels_of({"__name__": "u-p"}), form=Form(any_names=True))
    assert bad.error is not None and bad.error.id == "metric-name-invalid"


def test_the_number_of_labels_is_not_judged_where_a_request_says_so() -> None:
    setup, many = Setup(max_label_names_per_series=2), named("up", a="1", b="2")
    for _ in range(2):
        refused = push(setup, many)
        assert isinstance(refused.error, ClientError) and refused.error.id == "max-label-names-per-series"
        assert push(setup, many, form=Form(any_count=True)).error is None
    assert setup.only.series == [many]


def test_any_utf8_is_a_name_under_the_utf8_scheme() -> None:
    odd = labels_of({"__name__": "größe.http", "an other": "1"})
    setup = Setup(name_validation_scheme="utf8")
    assert push(setup, odd).error is None
    assert push(setup, odd, at=1).error is None
    assert setup.only.series == [odd]
    refused = push(Setup(), odd)
    assert refused.error is not None and refused.error.id == "metric-name-invalid"


@pytest.mark.parametrize(("strategy", "length"), [("drop", 71), ("truncate", 80)])
def test_longer_values_give_way_to_a_hash_and_stay_known(strategy: str, length: int) -> None:
    setup = Setup(label_value_length_over_limit_strategy=strategy, max_label_value_length=80)
    for at in range(2):
        assert push(setup, named("up", job="x" * 81), at=at).error is None
    ((_, value),) = (pair for pair in setup.only.series[0] if pair[0] == "job")
    assert (len(value), len(setup.only.series), len(setup.only.stored)) == (length, 1, 2)


# Groups.


def test_refused_samples_are_counted_under_the_group_of_the_first_series() -> None:
    setup = Setup(separate_metrics_group_label="team", max_label_value_length=5)
    push(setup, named("up", team="red"), named("up", job="too long"))
    push(setup, named("up", job="x"), named("up", job="also too long"))
    for group in ("red", ""):
        reason = {"user": TENANT, "group": group, "reason": "label_value_too_long"}
        assert setup.metric("cortex_discarded_samples_total", **reason) == 1


def test_there_are_so_many_groups_and_then_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mimir_ray.roles.distributor.first_series.GROUPS_MAX", 2)
    setup = Setup(separate_metrics_group_label="team", ingestion_rate=0.0, ingestion_burst_size=0)
    for team in ("a", "b", "c", "d", "a"):
        push(setup, named("up", team=team))
    counts = {
        group: setup.metric("cortex_discarded_samples_total", user=TENANT, group=group, reason="rate_limited")
        for group in ("a", "b", "c", "d", "other")
    }
    assert counts == {"a": 2, "b": 1, "c": 0, "d": 0, "other": 2}


def test_rules_of_one_tenant_do_not_touch_another() -> None:
    setup = Setup(metric_relabel_configs=(TENANT_LABEL,))

    async def work() -> None:
        for tenant in ("t1", "t2"):
            body = encode_write_request([(named("up"), [(NOW_MS, 1.0)])])
            assert (await setup.distributor.push(TenantId(tenant), body)).error is None
        await setup.distributor.drain()

    asyncio.run(work())
    assert setup.only.series == [named("up", tenant="t1"), named("up", tenant="t2")]
