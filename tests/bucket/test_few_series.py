"""A few series at once (`find_equal`, `read_few`): what `BucketBlock` finds a step at a time, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.bucket import block_reader
from mimir_ray.bucket.block_reader import BlockCaches, BucketBlock
from mimir_ray.bucket.few_series import SERIES_MAX, few_series
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.found import Found, FoundCache
from mimir_ray.bucket.index_header import IndexHeaders
from mimir_ray.bucket.ranges import PageCache
from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.bucket_blocks import put_block, ulid_of
from mimir_ray.testing.strategies import series_lists

TENANT = TenantId("team-a")


def block_of(root: Path, series: list[tuple[Labels, list[tuple[int, float]]]], **more: int) -> BucketBlock:
    shutil.rmtree(root, ignore_errors=True)
    put_block(root / "bucket", TENANT, series, **more)
    bucket = FilesystemBucket(root / "bucket")
    caches = BlockCaches(PageCache(0), PageCache(0), FoundCache(0))
    return BucketBlock(bucket, TENANT, ulid_of(0), IndexHeaders(bucket, root / "headers", ManualClock(0)), caches)


def by_steps(block: BucketBlock, matchers: tuple[Matcher, ...], monkeypatch: pytest.MonkeyPatch) -> Found:
    with monkeypatch.context() as patch:
        patch.setattr(block_reader, "few_series", lambda *_: None)
        return block.find(matchers)


def content(found: Found) -> list[tuple[Labels, list[tuple[int, int, int]]]]:
    chunks = [*zip(found.mints.tolist(), found.maxts.tolist(), found.references.tolist(), strict=True)]
    cuts = found.offsets.tolist()
    return [
        (labels, chunks[a:b]) for labels, a, b in zip(found.labels.columns().to_labels(), cuts, cuts[1:], strict=False)
    ]


def equal(**labels: str) -> tuple[Matcher, ...]:
    return tuple(Matcher(MatchType.EQUAL, name, value) for name, value in labels.items())


@given(series_lists(max_size=12), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_few_series_are_found_as_many_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    series: list[tuple[Labels, list[tuple[int, float]]]],
    data: st.DataObject,
) -> None:
    block = block_of(tmp_path, series, samples_per_chunk=3)
    pairs = sorted({pair for labels, _ in series for pair in labels} | {("job", "x"), ("nowhere", "a")})
    wanted = dict(data.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=3)))
    matchers = equal(**wanted)
    found = few_series(block.header(), matchers)
    assert found is not None
    assert content(found) == content(by_steps(block, matchers, monkeypatch))


def hosts(count: int) -> list[tuple[Labels, list[tuple[int, float]]]]:
    return [
        (labels_of({"__name__": "m", "host": f"h{n:05d}", "job": "node", "zone": f"z{n % 3}"}), [(1, 1.0)])
        for n in range(count)
    ]


def test_only_equalities_of_few_series_are_simple(tmp_path: Path) -> None:
    header = block_of(tmp_path, hosts(3 * SERIES_MAX + 3)).header()
    assert few_series(header, equal(host="h00001", job="node")) is not None
    nobody = few_series(header, equal(host="h00001", zone="z0"))
    assert nobody is not None
    assert len(nobody) == 0
    assert few_series(header, equal(zone="z0")) is None  # one more than there is room for
    assert few_series(header, ()) is None
    for type_, value in (
        (MatchType.NOT_EQUAL, "z0"), (MatchType.EQUAL, ""), (MatchType.REGEX, "z0|z1"), (MatchType.REGEX, "z.*"),
        (MatchType.NOT_REGEX, "z0"),
    ):  # fmt: skip
        assert few_series(header, (*equal(host="h00001"), Matcher(type_, "zone", value))) is None
    header.places = np.zeros(1, np.int64)
    assert few_series(header, equal(host="h00001")) is None


def test_a_list_that_is_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_of(tmp_path, hosts(1000))
    matchers = equal(host="h00004", job="node")
    assert few_series(block.header(), matchers) is None
    assert content(block.find(matchers)) == content(by_steps(block, matchers, monkeypatch))
    assert len(block.find(matchers)) == 1


def test_series_that_have_more_than_there_is_room_for_are_left_to_others(tmp_path: Path) -> None:
    many = {f"label_{n}": f"v{n}" for n in range(600)}
    long = {"long": "x" * 40_000}
    series = [(labels_of({"a": "1", **many}), [(1, 1.0)]), (labels_of({"a": "2", **long}), [(1, 1.0)])]
    block = block_of(tmp_path, series)
    for number, labels in (("1", many), ("2", long)):
        assert few_series(block.header(), equal(a=number)) is None
        assert block.find(equal(a=number)).labels.columns().to_labels() == [labels_of({"a": number, **labels})]
    points = [(n, 1.0) for n in range(2100)]
    block = block_of(tmp_path, [(labels_of({"a": "1"}), points)], samples_per_chunk=1)
    assert few_series(block.header(), equal(a="1")) is None
    assert len(block.find(equal(a="1")).mints) == 2100
