from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.testing.blocks import ULID, Points, make_block
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.verify import (
    first_not_ascending,
    first_unordered_series,
    first_wrong_postings,
    verify_block,
)

SERIES: list[tuple[Labels, Points]] = [
    (
        labels_of({"__name__": f"m{number % 3}", "i": f"{number:02d}", "job": "ü" if number % 2 else ""}),
        [(1_700_000_000_000 + step * 15_000, number * step / 7) for step in range(1 + 40 * number)],
    )
    for number in range(12)
]


@pytest.fixture
def block(tmp_path: Path) -> Path:
    make_block(tmp_path, SERIES, segment_bytes=9_000)
    return tmp_path / ULID


def damage(block: Path) -> str:
    with pytest.raises(DamagedBlock) as caught:
        verify_block(block)
    return str(caught.value).replace(str(block), "")


def change_meta(block: Path, change: object) -> None:
    body = json.loads((block / "meta.json").read_bytes())
    change(body)  # type: ignore[operator]
    (block / "meta.json").write_text(json.dumps(body))


def test_a_block_that_we_wrote_is_whole(block: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify_block(block, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 12), (12, 12)]
    assert len(list((block / "chunks").iterdir())) > 1


def test_an_empty_block_is_whole(tmp_path: Path) -> None:
    make_block(tmp_path, [])
    verify_block(tmp_path / ULID)


@pytest.mark.parametrize("name", ["meta.json", "index", "chunks/000001", "chunks/000002"])
def test_a_missing_file_is_named(block: Path, name: str) -> None:
    (block / name).unlink()
    assert damage(block) == f"/{name} is damaged at byte 0: there is no such file"


def test_a_missing_segment_is_noticed_without_a_list_of_files(block: Path) -> None:
    change_meta(block, lambda body: body.pop("thanos"))
    (block / "chunks" / "000001").unlink()
    assert damage(block) == "/chunks/000002 is damaged at byte 0: segment 000001 is missing"


def test_every_changed_byte_of_the_index_is_found(block: Path) -> None:
    whole = (block / "index").read_bytes()
    toc = IndexFile(block / "index").toc
    first_padding = {at for at in range(toc.series, toc.postings) if not whole[at]}
    for at in range(len(whole)):
        if at in first_padding:
            continue  # zeros between series belong to nothing; a zero inside of one is covered by its neighbours
        (block / "index").write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        if not unread(at, toc):
            damage(block)


def unread(at: int, toc: object) -> bool:
    """The old label indices are of no use to anybody since Prometheus 2.12, and read by nobody."""
    sections = sorted(value for value in (getattr(toc, name) for name in toc.__slots__) if value)  # type: ignore[attr-defined]
    return any(
        start <= at < end
        for start, end in pairwise([*sections, 1 << 60])
        if start in (toc.label_indices, toc.label_indices_table)  # type: ignore[attr-defined]
    )


@given(st.data())
def test_every_changed_byte_of_a_segment_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "segments"
    if not folder.exists():
        make_block(folder, SERIES)
    path = folder / ULID / "chunks" / "000001"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1).filter(lambda at: not 5 <= at < 8))
    try:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        damage(folder / ULID)
    finally:
        path.write_bytes(whole)


def test_a_cut_file_is_found_by_its_size_or_without_one(block: Path) -> None:
    path = block / "chunks" / "000002"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert damage(block).endswith(f"it has {size - 1} bytes, meta.json says {size}")
    change_meta(block, lambda body: body.pop("thanos"))
    assert "no chunk, or an incomplete one" in damage(block)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: body.update(version=2), "unexpected version 2"),
        (lambda body: body.update(ulid="01ARZ3NDEKTSV4RRFFQ69G5FAW"), "it is of block 01ARZ3NDEKTSV4RRFFQ69G5FAW"),
        (lambda body: body.update(maxTime=body["maxTime"] - 1), "a chunk is of ["),
        (lambda body: body.update(minTime=body["minTime"] + 1), "a chunk is of ["),
        (lambda body: body["stats"].update(numSeries=99), "it says 99 series, the block has 12"),
        (lambda body: body["stats"].update(numChunks=99), "it says 99 chunks, the block has"),
        (lambda body: body["stats"].update(numSamples=99), "it says 99 samples, the block has"),
        (lambda body: body["thanos"]["files"].append({"rel_path": "../../x"}), "invalid path: '../../x'"),
        (lambda body: body["thanos"]["files"].append({"rel_path": "chunks"}), "it is no regular file"),
        (
            lambda body: body["thanos"]["segment_files"].append("000099"),
            "000099 is damaged at byte 0: there is no such",
        ),
    ],
)
def test_a_description_that_is_not_of_this_block_is_found(block: Path, change: object, reason: str) -> None:
    change_meta(block, change)
    assert reason in damage(block)


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Changes a section of the index file and makes its checksum right again."""
    data = path.read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    data = data.replace(old, new)
    toc = IndexFile(path).toc
    start = max(
        at
        for at in (toc.symbols, toc.postings_table, *IndexFile(path).postings_table().offsets)
        if at <= data.find(new)
    )
    size = int.from_bytes(data[start : start + 4], "big")
    end = start + 4 + size
    path.write_bytes(data[:end] + crc32c(data[start + 4 : end]).to_bytes(4, "big") + data[end + 4 :])


def test_symbols_out_of_order_are_found(block: Path) -> None:
    rewritten(block / "index", b"\x0200\x0201", b"\x0201\x0200")
    assert "symbol 1 is not greater than the one before it" in damage(block)


def test_a_postings_list_of_other_series_is_found(block: Path) -> None:
    index = IndexFile(block / "index")
    table = index.postings_table()
    last = int(table.offsets[-1])
    references = index.postings(last)
    assert len(references) == 6
    wrong = b"".join(int(one).to_bytes(4, "big") for one in [*references[:-1].tolist(), 7])
    rewritten(block / "index", index.data[last + 8 : last + 8 + 24].tobytes(), wrong)
    assert "a postings list is damaged, or not of the series that have the pair" in damage(block)


def test_a_postings_table_of_other_pairs_is_found(block: Path) -> None:
    rewritten(block / "index", b"\x02\x01i\x0207", b"\x02\x01i\x0297")
    assert "the postings table is not that of the pairs" in damage(block)


def test_chunks_can_be_left_out(block: Path) -> None:
    path = block / "chunks" / "000001"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    assert "checksum mismatch" in damage(block)
    verify_block(block, chunks=False)


@given(st.lists(st.binary(max_size=3), max_size=6))
def test_first_not_ascending_is_what_it_says(strings: list[bytes]) -> None:
    arena = np.frombuffer(b"".join(strings), np.uint8)
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in strings]))).astype(np.int64)
    slow = next((i for i in range(1, len(strings)) if strings[i] <= strings[i - 1]), -1)
    assert first_not_ascending(arena, cuts) == slow


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=5))
def test_first_unordered_series_is_what_it_says(sets: list[list[int]]) -> None:
    names = np.array([0, 0, 1, 1, 2, 2], np.int32)  # of pairs 0 to 5
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in sets]))).astype(np.int64)
    cells = np.array([pair for one in sets for pair in one], np.int32)

    def slow() -> int:
        for s, one in enumerate(sets):
            if any(names[a] >= names[b] for a, b in pairwise(one)):
                return 4 * s + 1
            if s and one <= sets[s - 1]:
                return 4 * s + 2
        return -1

    assert first_unordered_series(offsets, cells, names) == slow()


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=4), st.data())
def test_first_wrong_postings_is_what_it_says(lists: list[list[int]], data: st.DataObject) -> None:
    raw, starts = bytearray(b"head"), []
    for one in lists:
        body = len(one).to_bytes(4, "big") + b"".join(number.to_bytes(4, "big") for number in one)
        starts.append(len(raw))
        raw += len(body).to_bytes(4, "big") + body + crc32c(body).to_bytes(4, "big")
    meant = data.draw(st.sampled_from([lists, [*lists[:-1], [1, 2]][: len(lists)]]))
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in meant]))).astype(np.int64)
    references = np.array([number for one in meant for number in one], np.int64)
    broken = data.draw(st.none() | st.integers(4, max(4, len(raw) - 1))) if lists else None
    if broken is not None:
        raw[broken] ^= 8
    wrong = [p for p, (one, other) in enumerate(zip(lists, meant, strict=True)) if one != other]
    if broken is not None:
        wrong.append(max(p for p, start in enumerate(starts) if start <= broken))
    found = first_wrong_postings(
        np.frombuffer(bytes(raw), np.uint8), len(raw), np.array(starts, np.int64), offsets, references
    )
    assert found == (min(wrong) if wrong else -1)
