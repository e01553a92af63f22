"""The XOR encoding, bit by bit, from upstream's bytes, and against damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.encoding.varint import encode_uvarint, encode_varint
from mimir_ray.model.series import NORMAL_NAN_BITS, STALE_NAN_BITS
from mimir_ray.testing.memory import at_the_edge
from mimir_ray.tsdb.chunks.xor import chunk_counts, decode_chunk, decode_chunks, encode_chunk

MASK = (1 << 64) - 1


def slow_encode(timestamps: list[int], value_bits: list[int]) -> bytes:
    """The format as tsdb/docs/bstream.md and the Gorilla paper tell it, one text of 0 and 1."""

    def text(data: bytes) -> str:
        return "".join(f"{byte:08b}" for byte in data)

    def value(bits: int, before: int) -> str:
        nonlocal window
        changed = f"{bits ^ before:064b}"
        if "1" not in changed:
            return "0"
        leading, trailing = min(changed.index("1"), 31), 63 - changed.rindex("1")
        if window is not None and leading >= window[0] and trailing >= window[1]:
            return "10" + changed[window[0] : 64 - window[1]]
        window = (leading, trailing)
        length = 64 - leading - trailing
        return f"11{leading:05b}{length % 64:06b}" + changed[leading : 64 - trailing]

    window: tuple[int, int] | None = None
    out, delta = text(len(timestamps).to_bytes(2, "big")), 0
    for n, (t, bits) in enumerate(zip(timestamps, value_bits, strict=True)):
        if n == 0:
            out += text(encode_varint(t)) + f"{bits:064b}"
            continue
        new_delta = (t - timestamps[n - 1]) & MASK
        if n == 1:
            out += text(encode_uvarint(new_delta))
        else:
            change = (new_delta - delta) & MASK
            signed = change - (1 << 64) if change >> 63 else change
            if signed == 0:
                out += "0"
            else:
                for prefix, size in (("10", 14), ("110", 17), ("1110", 20), ("1111", 64)):
                    if size == 64 or -(1 << (size - 1)) < signed <= 1 << (size - 1):
                        out += prefix + f"{change & ((1 << size) - 1):0{size}b}"
                        break
        delta = new_delta
        out += value(bits, value_bits[n - 1])
    return slow_padded(out)


def slow_padded(out: str) -> bytes:
    out += "0" * (-len(out) % 8)
    return int(out, 2).to_bytes(len(out) // 8, "big")


instants = st.integers(-(1 << 63), (1 << 63) - 1)
bit_patterns = st.one_of(
    st.integers(0, MASK),
    st.sampled_from([0, 1, 1 << 63, STALE_NAN_BITS, NORMAL_NAN_BITS, 0x7FF0000000000001, MASK]),
    st.floats(width=64).map(lambda value: int(np.float64(value).view(np.uint64))),
    st.integers(0, 100).map(lambda value: int(np.float64(value).view(np.uint64))),
)
regular_times = st.tuples(instants, st.lists(st.integers(0, 70_000), max_size=60)).map(
    lambda drawn: [t for t in np.cumsum([drawn[0], *drawn[1]], dtype=object).tolist() if t < 1 << 63]
)
wild_times = st.lists(instants, min_size=1, max_size=60, unique=True).map(sorted)


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    times = draw(regular_times | wild_times)
    return times, draw(st.lists(bit_patterns, min_size=len(times), max_size=len(times)))


def arrays(times: list[int], bits: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(times, np.int64), np.array(bits, np.uint64).view(np.float64)


@settings(max_examples=300)
@given(samples())
def test_decoding_gives_back_times_and_value_bits(drawn: tuple[list[int], list[int]]) -> None:
    decoded = decode_chunk(encode_chunk(*arrays(*drawn)))
    assert decoded is not None
    assert (decoded[0].tolist(), decoded[1].view(np.uint64).tolist()) == drawn


@settings(max_examples=300)
@given(samples())
def test_encoding_gives_the_bytes_of_the_slow_twin(drawn: tuple[list[int], list[int]]) -> None:
    assert encode_chunk(*arrays(*drawn)) == slow_encode(*drawn)


@pytest.mark.parametrize("size", [14, 17, 20])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_intervals_at_the_edges_of_their_lengths_survive(size: int, side: int) -> None:
    edges = [(1 << (size - 1)) + side, -(1 << (size - 1)) + 1 + side]
    deltas = np.cumsum([10_000_000, edges[0], 0, edges[1], edges[1], edges[0]])
    times = np.cumsum([1_700_000_000_000, *deltas])
    values = np.arange(len(times)) * 0.5
    encoded = encode_chunk(times, values)
    assert encoded == slow_encode(times.tolist(), values.view(np.uint64).tolist())
    decoded = decode_chunk(encoded)
    assert decoded is not None and decoded[0].tolist() == times.tolist()


def test_a_hand_made_chunk_has_these_bits() -> None:
    # 1.0 ^ 2.0 has one leading and 52 trailing zeros: 11 00001 001011 11111111111, then 0 (interval) 0 (value).
    expected = "0003023ff000000000000001c25fff00"
    assert encode_chunk(np.array([1, 2, 3]), np.array([1.0, 2.0, 2.0])).hex() == expected


def test_a_chunk_written_by_upstream_is_read() -> None:
    # Upstream: tsdb/testdata/index_format_v1/chunks/000001, whose old writer left a spare byte.
    decoded = decode_chunk(bytes.fromhex("000100000000000000000000"))
    assert decoded is not None
    assert (decoded[0].tolist(), decoded[1].tolist()) == ([0], [0.0])


def test_unchanged_samples_take_two_bits() -> None:
    times, values = np.arange(1000) * 15_000, np.full(1000, 3.25)
    encoded = encode_chunk(times, values)
    assert len(encoded) <= 2 + 1 + 8 + 3 + 1 + 2 * 998 // 8 + 1
    decoded = decode_chunk(encoded)
    assert decoded is not None
    assert decoded[0].tolist() == times.tolist() and (decoded[1] == 3.25).all()


def test_many_chunks_are_decoded_to_where_they_are_wanted() -> None:
    rng = np.random.default_rng(5)
    parts = [(np.arange(n) * 1000 + n, rng.normal(size=n)) for n in (3, 120, 1, 7)]
    chunks = [encode_chunk(*part) for part in parts]
    data = np.frombuffer(b"--".join(chunks), np.uint8)
    starts = np.cumsum([0] + [len(chunk) + 2 for chunk in chunks[:-1]])
    ends = starts + [len(chunk) for chunk in chunks]
    counts = np.zeros(4, np.int64)
    assert chunk_counts(data, starts, ends, counts) == 131
    assert counts.tolist() == [3, 120, 1, 7]
    out_starts = np.array([128, 8, 0, 1])
    timestamps, values = np.zeros(131, np.int64), np.zeros(131)
    assert decode_chunks(data, starts, ends, out_starts, timestamps, values) == 131
    for start, (times, numbers) in zip(out_starts, parts, strict=True):
        assert timestamps[start : start + len(times)].tolist() == times.tolist()
        assert values[start : start + len(times)].tolist() == numbers.tolist()


def test_an_empty_chunk_has_no_samples() -> None:
    decoded = decode_chunk(encode_chunk(np.zeros(0, np.int64), np.zeros(0)))
    assert decoded is not None and len(decoded[0]) == 0


@given(samples(), st.integers(0, 200))
def test_a_chunk_cut_anywhere_is_damaged_or_still_complete(drawn: tuple[list[int], list[int]], cut: int) -> None:
    encoded = encode_chunk(*arrays(*drawn))
    cut = min(cut, len(encoded))
    assert decode_chunk(encoded[: len(encoded) - cut]) is None or cut == 0


@given(st.binary(max_size=60), st.integers(0, 300), st.binary(max_size=60))
def test_random_bytes_never_touch_what_lies_around(body: bytes, count: int, behind: bytes) -> None:
    chunk = count.to_bytes(2, "big") + body
    data = np.frombuffer(chunk + behind, np.uint8)
    starts, ends = np.zeros(1, np.int64), np.array([len(chunk)])
    results = []
    for fill in (0, -1):
        timestamps, values = np.full(count + 20, fill, np.int64), np.full(count + 20, float(fill))
        code = decode_chunks(data, starts, ends, np.array([10]), timestamps, values)
        assert code in (-1, count)
        assert set(timestamps[:10].tolist() + timestamps[10 + count :].tolist()) == {fill}
        assert set(values[:10].tolist() + values[10 + count :].tolist()) == {float(fill)}
        results.append((code, timestamps[10 : 10 + count].tolist() if code >= 0 else None))
    assert results[0] == results[1]
    # The same verdict where nothing lies behind.
    alone = decode_chunk(chunk)
    assert (alone is None) == (results[0][0] < 0)
    if alone is not None:
        assert alone[0].tolist() == results[0][1]


@given(samples(), st.binary(max_size=30), st.integers(0, 40))
def test_decoding_never_reads_past_the_end_of_the_array(
    drawn: tuple[list[int], list[int]], garbage: bytes, cut: int
) -> None:
    encoded = encode_chunk(*arrays(*drawn))
    for chunk in (encoded, encoded[: max(2, len(encoded) - cut)], encoded[:2] + garbage):
        alone = decode_chunk(at_the_edge(chunk))
        elsewhere = decode_chunk(chunk)
        assert (alone is None) == (elsewhere is None)
        if alone is not None and elsewhere is not None:
            assert alone[0].tobytes() == elsewhere[0].tobytes() and alone[1].tobytes() == elsewhere[1].tobytes()


@pytest.mark.parametrize("behind", range(0, 40, 2))
def test_the_longest_sample_in_front_of_the_end_of_the_array_is_not_read_past_it(behind: int) -> None:
    # The third sample has an interval of 64 bits and a value of 64 bits more; the chunk ends where it starts.
    third = "1111" + "0" * 64 + "10" + "1" * 64
    body = slow_padded("0" + third + "1" * 200)
    chunk = (9).to_bytes(2, "big") + bytes(9) + b"\x01" + body[:1]
    data = at_the_edge((chunk + body[1:])[: len(chunk) + behind])
    starts, ends = np.zeros(1, np.int64), np.array([len(chunk)])
    assert decode_chunks(data, starts, ends, starts, np.zeros(9, np.int64), np.zeros(9)) == -1


@pytest.mark.parametrize(("start", "end"), [(-1, 10), (0, 1000), (5, 6), (8, 4), (1 << 62, (1 << 62) + 5)])
def test_a_chunk_outside_of_the_data_is_named(start: int, end: int) -> None:
    chunk = encode_chunk(np.arange(3), np.zeros(3))
    data = np.frombuffer(chunk, np.uint8)
    starts, ends = np.array([0, start]), np.array([len(chunk), end])
    timestamps, values = np.zeros(10, np.int64), np.zeros(10)
    assert chunk_counts(data, starts, ends, np.zeros(2, np.int64)) == -2
    assert decode_chunks(data, starts, ends, np.array([0, 3]), timestamps, values) == -2


def test_an_output_that_is_too_short_is_refused() -> None:
    data = np.frombuffer(encode_chunk(np.arange(5), np.zeros(5)), np.uint8)
    starts, ends = np.zeros(1, np.int64), np.array([len(data)])
    assert decode_chunks(data, starts, ends, np.array([1]), np.zeros(5, np.int64), np.zeros(5)) == -1
