"""What is planned: single rules by example, and by any history that nothing is lost and planning comes to an end."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from ulid import ULID

from mimir_ray.tsdb.compact.plan import (
    Job,
    Patience,
    SourceBlock,
    block_token,
    format_shard,
    group_labels,
    in_order,
    parse_shard,
    plan_jobs,
    superseded,
    waits_for,
)

HOUR = 3_600_000
RANGES = (2 * HOUR, 12 * HOUR, 24 * HOUR)
LATER = 10_000 * HOUR


def ulid(number: int) -> str:
    return str(ULID(number.to_bytes(16, "big")))


def block(number: int, start_h: float, end_h: float, **fields: object) -> SourceBlock:
    name = ulid(number)
    return replace(
        SourceBlock(name, int(start_h * HOUR), int(end_h * HOUR), sources=frozenset({name})),
        **fields,  # type: ignore[arg-type]
    )


def plan(*blocks: SourceBlock, shards: int = 0, groups: int = 1, now_ms: int = LATER) -> list[Job]:
    return plan_jobs("t", blocks, RANGES, shards, groups, now_ms)


def test_blocks_of_one_range_are_merged() -> None:
    (job,) = plan(block(1, 0, 2), block(2, 0, 2), block(3, 0, 2))
    assert (job.stage, job.shard, job.range_start, job.range_end, job.ulids) == (
        "merge", "", 0, 2 * HOUR, [ulid(1), ulid(2), ulid(3)],
    )  # fmt: skip


def test_a_single_block_of_the_smallest_range_is_left_alone() -> None:
    assert plan(block(1, 0, 2)) == []


def test_blocks_that_nothing_is_known_of_are_no_plan() -> None:
    assert plan() == []


def test_a_longer_range_waits_for_the_shorter_ones_inside_it() -> None:
    jobs = plan(block(1, 0, 2), block(2, 0, 2), block(3, 2, 4), block(4, 12, 14), block(5, 14, 16))
    assert [(job.range_start // HOUR, job.range_end // HOUR) for job in jobs] == [(0, 2), (12, 24)]


def test_a_block_that_sticks_out_of_its_range_is_left_to_a_longer_one() -> None:
    (job,) = plan(block(1, 1, 3), block(2, 0, 2))
    assert (job.range_end, job.ulids) == (12 * HOUR, [ulid(1), ulid(2)])


def test_blocks_before_1970_are_grouped_by_ranges_that_end_at_it() -> None:
    (job,) = plan(block(1, -2, 0), block(2, -2, 0))
    assert (job.range_start, job.range_end) == (-2 * HOUR, 0)


def test_external_labels_and_resolutions_keep_blocks_apart() -> None:
    a, b = (("a", "1"),), (("a", "2"),)
    blocks = [block(1, 0, 2, labels=a), block(2, 0, 2, labels=b), block(3, 0, 2, labels=a, resolution=5)]
    assert plan(*blocks) == []
    assert len(plan(*blocks, block(4, 0, 2, labels=a))) == 1


def test_labels_of_shards_and_older_versions_keep_nothing_apart() -> None:
    labels = {"__compactor_shard_id__": "1_of_2", "__org_id__": "t", "__ingester_id__": "i", "b": "2", "a": "1"}
    assert group_labels(labels) == (("a", "1"), ("b", "2"))


def test_unsharded_blocks_of_the_smallest_range_are_split_before_anything_is_merged() -> None:
    (job,) = plan(block(1, 0, 2), block(2, 0, 2), block(3, 0, 2, shard="1_of_2"), shards=2)
    assert (job.stage, job.shard, job.shards, job.ulids) == ("split", "1_of_1", 2, [ulid(1), ulid(2)])


def test_the_number_of_shards_is_rounded_up_to_a_power_of_two() -> None:
    assert [plan(block(1, 0, 2), shards=wanted)[0].shards for wanted in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]


def test_blocks_to_split_are_spread_over_groups_by_their_ulid() -> None:
    blocks = [block(number, 0, 2) for number in range(1, 9)]
    jobs = plan(*blocks, shards=2, groups=3)
    assert {job.shard: job.ulids for job in jobs} == {
        format_shard(group, 3): [one.ulid for one in blocks if block_token(one.ulid) % 3 == group]
        for group in sorted({block_token(one.ulid) % 3 for one in blocks})
    }


def test_shards_are_merged_each_by_itself() -> None:
    blocks = [block(number, 0, 2, shard=shard, level=2) for number, shard in enumerate(["1_of_2", "2_of_2"] * 2)]
    assert [(job.shard, job.ulids) for job in plan(*blocks, shards=2)] == [
        ("1_of_2", [ulid(0), ulid(2)]), ("2_of_2", [ulid(1), ulid(3)]),
    ]  # fmt: skip


def test_a_range_that_is_still_being_filled_is_not_compacted() -> None:
    blocks = [block(1, 0, 2, level=2), block(2, 2, 4, level=2)]
    assert plan(*blocks, now_ms=4 * HOUR) == []
    assert len(plan(*blocks, block(3, 12, 14), now_ms=14 * HOUR)) == 1, "a newer block is there"
    assert len(plan(*blocks, block(3, 4, 12, level=2), now_ms=12 * HOUR)) == 1, "it is full"
    assert plan(*blocks, now_ms=24 * HOUR - 1) == []
    assert len(plan(*blocks, now_ms=24 * HOUR)) == 1, "nobody sends anything any more"


def test_first_level_blocks_of_the_current_range_are_compacted() -> None:
    assert len(plan(block(1, 0.5, 1), block(2, 0.2, 1.5), now_ms=2 * HOUR)) == 1


def test_a_job_belongs_to_the_owner_of_its_key() -> None:
    (job,) = plan(block(1, 0, 2), block(2, 0, 2))
    assert job.sharding_key == "t-merge-0-7200000-"
    value = 2166136261
    for byte in job.sharding_key.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    assert job.token == value


def test_splits_go_first_then_short_ranges_then_old_ones() -> None:
    jobs = [
        Job("t", "merge", "", 0, 12 * HOUR, (block(1, 0, 12),)),
        Job("t", "merge", "", 24 * HOUR, 26 * HOUR, (block(2, 24, 26),)),
        Job("t", "merge", "", 22 * HOUR, 24 * HOUR, (block(3, 22, 24),)),
        Job("t", "split", "", 48 * HOUR, 50 * HOUR, (block(4, 48, 50),), 2),
        Job("t", "split", "", 46 * HOUR, 48 * HOUR, (block(5, 46, 47),), 2),
    ]
    order = [jobs[at] for at in (4, 3, 2, 1, 0)]
    assert in_order(jobs, "smallest-range-oldest-blocks-first") == order
    assert in_order(jobs, "newest-blocks-first") == [jobs[at] for at in (3, 4, 1, 2, 0)]


def test_first_level_blocks_wait_for_their_replicas() -> None:
    job = Job("t", "merge", "", 0, 2 * HOUR, (block(1, 0, 2), block(2, 0, 2, out_of_order=True)))
    uploaded = {ulid(1): 100, ulid(2): 500}
    assert waits_for(job, uploaded.__getitem__, Patience(50), 120) == ulid(1)
    assert waits_for(job, uploaded.__getitem__, Patience(50), 150) == "", "late samples are not waited for"
    assert waits_for(job, uploaded.__getitem__, Patience(50, out_of_order_ms=50), 150) == ulid(2), "unless that is set"
    assert waits_for(job, uploaded.__getitem__, Patience(), 120) == ""
    past = 2 * HOUR + 50
    assert waits_for(job, lambda _: 0, Patience(50, until_past=True), past - 1) == ulid(1)
    assert waits_for(job, lambda _: 0, Patience(50, until_past=True), past) == ""
    merged = Job("t", "merge", "", 0, 2 * HOUR, (block(1, 0, 2, level=2), block(3, 0, 2, level=2)))
    assert waits_for(merged, lambda _: 100, Patience(50), 120) == ""


def test_shard_labels_that_are_none_are_no_shards() -> None:
    assert parse_shard("2_of_4") == (1, 4)
    assert [parse_shard(text) for text in ("", "0_of_4", "5_of_4", "1_of_", "1_of_2 ", "01_of_2", "x")] == [None] * 7


def test_sources_of_a_finished_merge_are_superseded() -> None:
    merged = block(9, 0, 2, level=2, sources=frozenset({ulid(1), ulid(2)}))
    assert superseded([block(1, 0, 2), block(2, 0, 2), block(3, 0, 2), merged]) == {ulid(1), ulid(2)}


def test_sources_of_a_split_are_superseded_once_all_shards_are_there() -> None:
    shards = [block(9 + at, 0, 2, shard=format_shard(at, 4), sources=frozenset({ulid(1)})) for at in range(4)]
    assert superseded([block(1, 0, 2), *shards[:3]]) == set()
    assert superseded([block(1, 0, 2), *shards]) == {ulid(1)}


def test_shards_of_different_counts_do_not_make_a_whole() -> None:
    parts = [block(9, 0, 2, shard="1_of_2", sources=frozenset({ulid(1)})),
             block(10, 0, 2, shard="2_of_4", sources=frozenset({ulid(1)}))]  # fmt: skip
    assert superseded([block(1, 0, 2), *parts]) == set()


def test_of_two_outputs_of_the_same_job_the_older_one_is_superseded() -> None:
    both = [block(number, 0, 2, level=2, sources=frozenset({ulid(1), ulid(2)})) for number in (8, 9)]
    assert superseded(both) == {ulid(8)}


def test_blocks_of_other_external_labels_supersede_nothing() -> None:
    merged = block(9, 0, 2, labels=(("a", "b"),), sources=frozenset({ulid(1), ulid(2)}))
    assert superseded([block(1, 0, 2), merged]) == set()


# A block as the samples that it stands for: (where it came from, shard) pairs.

Contents = dict[str, frozenset[tuple[str, int]]]
SHARDS_OF_CONTENT = 8


def apply(job: Job, known: dict[str, SourceBlock], contents: Contents, names: itertools.count[int]) -> None:
    """What running a job does to the bucket."""
    samples = frozenset().union(*(contents[one.ulid] for one in job.blocks))
    sources = frozenset().union(*(one.sources for one in job.blocks))
    count = max(1, job.shards)
    for index in range(count):
        part = frozenset(one for one in samples if one[1] % count == index) if job.shards else samples
        if not part:
            continue
        made = SourceBlock(
            ulid(next(names)),
            job.min_time,
            job.max_time,
            max(one.level for one in job.blocks) + 1,
            format_shard(index, count) if job.shards else job.shard,
            job.blocks[0].labels,
            job.blocks[0].resolution,
            job.blocks[0].out_of_order,
            sources,
        )
        known[made.ulid], contents[made.ulid] = made, part
    for one in job.blocks:
        del known[one.ulid]


starting_blocks = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 4), st.booleans(), st.sampled_from(["", "1_of_2", "2_of_2"])),
    max_size=24,
)


@settings(max_examples=150, deadline=None)
@given(starting_blocks, st.sampled_from([0, 1, 2, 3, 8]), st.integers(1, 3), st.data())
def test_whatever_is_planned_no_sample_is_lost_and_planning_ends(
    starting: list[tuple[int, int, bool, str]], shards: int, groups: int, data: st.DataObject
) -> None:
    known: dict[str, SourceBlock] = {}
    contents: Contents = {}
    names = itertools.count(1000)
    for number, (start_h, hours, labelled, shard) in enumerate(starting):
        one = block(number, start_h, start_h + hours, shard=shard, labels=(("a", "b"),) if labelled else ())
        known[one.ulid] = one
        shard_of = parse_shard(shard)
        contents[one.ulid] = frozenset(
            (one.ulid, at) for at in range(SHARDS_OF_CONTENT) if shard_of is None or at % shard_of[1] == shard_of[0]
        )
    everything = frozenset().union(*contents.values()) if contents else frozenset()
    for _ in range(4 * len(starting) + 4):
        jobs = plan_jobs("t", known.values(), RANGES, shards, groups, LATER)
        if not jobs:
            break
        taken = [one.ulid for job in jobs for one in job.blocks]
        assert len(taken) == len(set(taken)), "a block is in one job at most"
        for job in data.draw(st.permutations(jobs)):
            apply(job, known, contents, names)
        assert frozenset().union(*(contents[name] for name in known)) == everything
        assert superseded(known.values()) == set()
    else:
        raise AssertionError("planning does not end")
    for members in _by_range(known.values()).values():
        assert len(members) == 1, "what can be merged has been merged"


def _by_range(blocks: object) -> dict[tuple[object, ...], list[SourceBlock]]:
    """Blocks of the same group and shard by the largest range that they fit into."""
    found: dict[tuple[object, ...], list[SourceBlock]] = {}
    for one in blocks:  # type: ignore[attr-defined]
        start = one.min_time // RANGES[-1] * RANGES[-1]
        if one.max_time <= start + RANGES[-1]:
            found.setdefault((one.group, one.shard, start), []).append(one)
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=10), st.sampled_from([0, 2, 4]), st.data())
def test_a_compactor_that_dies_between_upload_and_marks_loses_nothing(
    starts: list[int], shards: int, data: st.DataObject
) -> None:
    """Its outputs, some or all, are there beside the sources; what is then superseded can go."""
    known = {one.ulid: one for one in (block(number, start, start + 1) for number, start in enumerate(starts))}
    contents = {name: frozenset((name, at) for at in range(SHARDS_OF_CONTENT)) for name in known}
    everything = frozenset().union(*contents.values())
    names = itertools.count(1000)
    for _ in range(40):
        jobs = plan_jobs("t", known.values(), RANGES, shards, 1, LATER)
        if not jobs:
            break
        before = dict(known)
        apply(jobs[0], known, contents, names)
        made = [name for name in known if name not in before]
        if data.draw(st.booleans()):  # it dies
            arrived = data.draw(st.sets(st.sampled_from(made)))
            known = {**before, **{name: known[name] for name in arrived}}
        for gone in superseded(known.values()):
            del known[gone]
        assert frozenset().union(*(contents[name] for name in known)) == everything
