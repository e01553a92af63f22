"""Exemplars and metadata in one ingester: limits, refusals, restarts, answers, numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.model.exemplars import Exemplar, SeriesExemplars
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.write import WriteResult
from mimir_ray.roles.distributor.errors import describe_refusal
from mimir_ray.testing.writes import write_batch
from tests.roles.ingester.test_ingester import ME, NOW, TENANT, Setup, ring_of, up

TRACE = labels_of({"trace_id": "abc"})
UP = (Matcher(MatchType.EQUAL, "__name__", "up"),)
ExemplarOf = tuple[Labels, Labels, int, float]


def open_with(folder: Path, **limits: Any) -> Setup:
    setup = Setup(folder)
    setup.limits = Limits(**{"max_global_exemplars_per_user": 10} | limits)
    return setup


def push(setup: Setup, *exemplars: ExemplarOf, known: bool = True) -> WriteResult:
    """With a sample of each series, unless it is not `known`."""
    series = list(dict.fromkeys(one[0] for one in exemplars))
    new = [(labels, [(setup.clock.now_ms(), 1.0)]) for labels in series] if known else []
    (result,) = setup.ingester.push([write_batch(new=new, tenant=TENANT, exemplars=exemplars)])
    return result


def found(setup: Setup, *selectors: tuple[Matcher, ...], mint: int = 0, maxt: int = 2 * NOW) -> list[SeriesExemplars]:
    return setup.ingester.exemplars(TENANT, selectors or (UP,), mint, maxt)


def test_exemplars_are_answered_by_series_and_time(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    push(setup, (up(1), TRACE, NOW, 1.0), (up(0), TRACE, NOW, 2.0), (up(0), labels_of({"a": "b"}), NOW + 5, 3.0))
    one, other, late = (
        Exemplar(TRACE, 1.0, NOW),
        Exemplar(TRACE, 2.0, NOW),
        Exemplar(labels_of({"a": "b"}), 3.0, NOW + 5),
    )
    assert found(setup) == [SeriesExemplars(up(0), (other, late)), SeriesExemplars(up(1), (one,))]
    assert found(setup, mint=NOW + 1) == [SeriesExemplars(up(0), (late,))]
    assert found(setup, maxt=NOW, mint=NOW + 1) == []
    first = (Matcher(MatchType.EQUAL, "instance", "1.host"),)
    assert found(setup, first) == [SeriesExemplars(up(1), (one,))]
    assert len(found(setup, first, UP)) == 2
    assert setup.metric("cortex_ingester_ingested_exemplars_total") == 3


def test_without_a_limit_none_are_kept(tmp_path: Path) -> None:
    setup = open_with(tmp_path, max_global_exemplars_per_user=0)
    result = push(setup, (up(), TRACE, NOW, 1.0))
    assert (result.refusals, result.refused_exemplars.tolist()) == ((), [0])
    assert found(setup) == []


def test_the_oldest_make_way_and_the_limit_may_change(tmp_path: Path) -> None:
    setup = open_with(tmp_path, max_global_exemplars_per_user=3)
    push(setup, *((up(), TRACE, NOW + at, 1.0) for at in range(5)))
    assert [one.timestamp for one in found(setup)[0].exemplars] == [NOW + 2, NOW + 3, NOW + 4]
    setup.limits = Limits(max_global_exemplars_per_user=2)
    push(setup, (up(), TRACE, NOW + 5, 1.0))
    assert [one.timestamp for one in found(setup)[0].exemplars] == [NOW + 4, NOW + 5]
    setup.ingester.maintain()
    assert setup.metric("cortex_ingester_tsdb_exemplar_exemplars_in_storage") == 2
    assert setup.metric("cortex_ingester_tsdb_exemplar_series_with_exemplars_in_storage", user=TENANT) == 1


def test_each_ingester_keeps_its_part_of_the_limit(tmp_path: Path) -> None:
    setup = open_with(tmp_path, max_global_exemplars_per_user=9)
    setup.ring = ring_of(ME, "b", "c")
    push(setup, *((up(), TRACE, NOW + at, 1.0) for at in range(9)))
    assert len(found(setup)[0].exemplars) == 3


def test_the_same_again_is_taken_in_silence(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    for _ in range(2):
        result = push(setup, (up(), TRACE, NOW, 1.0))
        assert (result.refusals, result.refused_exemplars.tolist()) == ((), [])
    assert len(found(setup)[0].exemplars) == 1


def test_an_older_one_is_refused_or_ignored_as_the_tenant_wants(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    push(setup, (up(), TRACE, NOW, 1.0))
    result = push(setup, (up(), TRACE, NOW - 1, 1.0), (up(), TRACE, NOW + 1, 1.0))
    assert result.refused_exemplars.tolist() == [0]
    (refusal,) = result.refusals
    assert describe_refusal(refusal) == (
        'err: out of order exemplar. timestamp=2023-11-14T22:13:19.999Z, series={__name__="up", instance="0.host"}, '
        'exemplar={trace_id="abc"}'
    )
    setup.limits = Limits(max_global_exemplars_per_user=10, ignore_ooo_exemplars=True)
    result = push(setup, (up(), TRACE, NOW - 1, 1.0))
    assert (result.refusals, result.refused_exemplars.tolist()) == ((), [0])
    setup.limits = Limits(max_global_exemplars_per_user=10, out_of_order_time_window=Duration(1000))
    assert not push(setup, (up(), TRACE, NOW - 1, 1.0)).refusals
    assert [one.timestamp for one in found(setup)[0].exemplars] == [NOW - 1, NOW, NOW + 1]


def test_an_exemplar_of_no_series_is_refused(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    for _ in range(2):  # the second time there is some other series
        (refusal,) = push(setup, (up(1), TRACE, NOW, 1.0), known=False).refusals
        assert describe_refusal(refusal) == (
            "the exemplar has been rejected because the related series has not been ingested yet "
            '(err-mimir-exemplar-series-missing). The affected exemplar is {trace_id="abc"} with timestamp '
            '2023-11-14T22:13:20Z for series {__name__="up", instance="1.host"}'
        )
        push(setup, (up(0), TRACE, NOW, 1.0))
    assert setup.metric("cortex_discarded_exemplars_total", user=TENANT, reason="exemplar_series_missing") == 2
    assert setup.metric("cortex_ingester_ingested_exemplars_failures_total") == 2


def test_exemplars_wait_for_references_that_are_good(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    push(setup, (up(), TRACE, NOW, 1.0))
    batch = write_batch(77, known=[(0, NOW + 1, 1.0)], tenant=TENANT, exemplars=[(up(), TRACE, NOW + 1, 1.0)])
    (result,) = setup.ingester.push([batch])
    assert result.stale and not len(result.refused_exemplars)
    assert len(found(setup)[0].exemplars) == 1


@pytest.mark.parametrize("checkpoint", [False, True])
def test_exemplars_and_metadata_survive_a_restart(tmp_path: Path, checkpoint: bool) -> None:
    setup = open_with(tmp_path)
    push(setup, (up(), TRACE, NOW, 1.0), (up(1), TRACE, NOW, 1.0))
    setup.ingester.push([write_batch(tenant=TENANT, metadata=(Metadata("up", "gauge", "Up."),))])
    if checkpoint:
        setup.ingester._tenants[TENANT].database.checkpoint()
    push(setup, (up(), TRACE, NOW + 1, 2.0))
    before = found(setup)
    assert sum(len(one.exemplars) for one in before) == 3
    crashed = setup.ingester  # nothing is written down at its end
    crashed._folder_lock.close()  # type: ignore[union-attr]
    setup.ingester = setup.again()
    setup.ingester.open()
    assert found(setup) == before
    assert setup.ingester.metadata(TENANT) == [Metadata("up", "gauge", "Up.")]


def test_metadata_is_forgotten_when_nobody_sends_it(tmp_path: Path) -> None:
    setup = open_with(tmp_path)
    for family in "ab":
        setup.ingester.push([write_batch(tenant=TENANT, metadata=(Metadata(family, "gauge"),))])
    setup.clock.advance_ms(400_000)
    setup.ingester.push([write_batch(tenant=TENANT, metadata=(Metadata("a", "gauge"),))])
    setup.clock.advance_ms(400_000)
    setup.ingester.maintain()
    assert setup.ingester.metadata(TENANT) == [Metadata("a", "gauge")]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (
            {"max_global_metadata_per_user": 1},
            "per-user metric metadata limit of 1 exceeded (err-mimir-max-metadata-per-user). To adjust the related "
            "per-tenant limit, configure -ingester.max-global-metadata-per-user, or contact your service "
            "administrator.",
        ),
        (
            {"max_global_metadata_per_metric": 1},
            "per-metric metadata limit of 1 exceeded (err-mimir-max-metadata-per-metric). To adjust the related "
            "per-tenant limit, configure -ingester.max-global-metadata-per-metric, or contact your service "
            "administrator. "
            'This is for series {__name__="a"}',
        ),
    ],
)
def test_metadata_over_a_limit_is_refused(tmp_path: Path, limits: dict[str, int], text: str) -> None:
    setup = open_with(tmp_path, **limits)
    entries = (Metadata("a", "gauge"), Metadata("a", "counter"), Metadata("b", "gauge"))
    (result,) = setup.ingester.push([write_batch(tenant=TENANT, metadata=entries)])
    (refusal,) = result.refusals
    assert describe_refusal(refusal) == text
    assert len(setup.ingester.metadata(TENANT)) == 2
    reasons = ("per_user_metadata_limit", "per_metric_metadata_limit")
    assert sum(setup.metric("cortex_discarded_metadata_total", user=TENANT, reason=one) for one in reasons) == 1
