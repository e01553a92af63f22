"""Prometheus' JSON of answers and errors, byte for byte, fast for large matrices.

Floats: orjson writes the shortest digits of whole columns, and a kernel puts them between timestamps and
quotes in the notation of Go's strconv ('f' for 1e-6 <= |x| < 1e21, otherwise 'e' with two digits of
exponent); integers and thousandths need no search for digits, the kernel writes them itself. Timestamps:
the texts of a step grid are written once a query. Label sets: every string is encoded once a query, a kernel
joins them by their codes.

Upstream: web/api/v1/json_codec.go, util/jsonutil/marshal.go, json-iterator for the rest: label sets are
written as they are, other strings with `<`, `>`, `&` escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes, float_to_bits, leading_zeros, load64_le, store64_le, trailing_zeros
from mimir_ray.kernel import F64, I64, U8, I32x2, OutI64, OutU8, device, kernel
from mimir_ray.model.float_histogram import FloatHistogram, boundaries
from mimir_ray.model.labels import LabelColumns, Labels, is_utf8
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.result import Matrix, QueryResult, QueryStats, Scalar, String, Value, Vector

# How a value is written: as orjson does, the same in another notation, or without orjson.
_PLAIN_DIGITS, _ODD, _WHOLE, _THOUSANDTHS, _NAN = range(5)
# The longest of the last three; how much longer than orjson's an odd one can get.
_EASY_BYTES_MAX = 17
_ODD_BYTES_MAX = 32
# Kernels write whole words and go on inside the last of them: so much may be written past the end.
_SLACK_BYTES = 32
# So few points are written one by one: kernels would wait for their arrays.
_FEW = 8
# The longest start of a point: [-9223372036854775.808,"
_STEP_BYTES = 24

_PLAIN = re.compile(r'[\x00-\x1f"\\]')
_HTML = re.compile('[\\x00-\\x1f"\\\\<>&\u2028\u2029]')
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


def encode_string(text: str, html: bool = True) -> bytes:
    """A JSON string as json-iterator writes it; `html`: with `<`, `>`, `&` escaped, as everywhere but in label sets."""
    escaped = (_HTML if html else _PLAIN).sub(_escape, text)
    if not is_utf8(escaped):
        escaped = _SURROGATE.sub("\ufffd", escaped)
    return b'"' + escaped.encode() + b'"'


def encode_float(value: float) -> str:
    """A float as Prometheus writes it, without the quotes."""
    if value != value:
        return "NaN"
    if value in (np.inf, -np.inf):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))  # the shortest digits too, in another notation
    if "e" not in text:
        return text.removesuffix(".0")
    size = abs(value)
    return text if size < 1e-6 or size >= 1e21 else np.format_float_positional(value, unique=True, trim="-")


def encode_timestamp(timestamp_ms: int) -> str:
    """Seconds with as many of three decimals as there are. Upstream: jsonutil.MarshalTimestamp."""
    seconds, fraction = divmod(abs(timestamp_ms), 1000)
    text = f"{'-' if timestamp_ms < 0 else ''}{seconds}"
    return f"{text}.{fraction:03d}" if fraction else text


def encode_number(value: float) -> str:
    """A float as Go's encoding/json writes it, as in statistics."""
    text = encode_float(value)
    return re.sub(r"e-0(\d)$", r"e-\1", text)


def encode_labels(labels: Labels) -> bytes:
    """One label set as an object."""
    pairs = (encode_string(name, html=False) + b":" + encode_string(value, html=False) for name, value in labels)
    return b"{" + b",".join(pairs) + b"}"


def success(data: bytes, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> bytes:
    """The envelope around `data`, which is JSON already."""
    return _succeed([data], warnings, infos)


def _succeed(data: Iterable[bytes | memoryview], warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    parts = [b'{"status":"success","data":', *data]
    for name, texts in ((b"warnings", warnings), (b"infos", infos)):
        if texts:
            parts += [b',"', name, b'":', encode_strings(texts)]
    parts.append(b"}")
    return b"".join(parts)


def error(error_type: str, text: str) -> bytes:
    """The body of a failed request."""
    return b'{"status":"error","errorType":%s,"error":%s}' % (encode_string(error_type), encode_string(text))


def encode_strings(texts: Iterable[str]) -> bytes:
    """A list of strings: label names, label values, warnings."""
    return b"[" + b",".join([encode_string(text) for text in texts]) + b"]"


def encode_series(series: Iterable[Labels]) -> bytes:
    """A list of label sets: the data of `/api/v1/series`."""
    return b"[" + b",".join([encode_labels(labels) for labels in series]) + b"]"


def encode_metadata(families: Mapping[str, Sequence[Metadata]]) -> bytes:
    """The data of `/api/v1/metadata`: per family its descriptions; families in bytewise order."""
    parts = []
    for family in sorted(families, key=lambda name: name.encode("utf-8", "replace")):
        entries = b",".join(
            b'{"type":%s,"help":%s,"unit":%s}'
            % (encode_string(one.type), encode_string(one.help), encode_string(one.unit))
            for one in families[family]
        )
        parts.append(encode_string(family) + b":[" + entries + b"]")
    return b"{" + b",".join(parts) + b"}"


def query_response(result: QueryResult, stats: str = "", steps: NDArray[np.int64] | None = None) -> bytes:
    """The whole body of `/api/v1/query` and `/api/v1/query_range`.

    Args:
        stats: the request's `stats` parameter: empty leaves statistics out, `all` adds those of each step.
        steps: int64[T], ms, the times of the steps, if those are wanted.
    """
    parts = [b'{"resultType":"', result.type.encode(), b'","result":', _encode_value(result.value)]
    if stats:
        parts += [b',"stats":', encode_stats(result.stats, steps if stats == "all" else None)]
    parts.append(b"}")
    return _succeed(parts, result.warnings, result.infos)


def encode_stats(stats: QueryStats, steps: NDArray[np.int64] | None = None) -> bytes:
    """Upstream: util/stats/query_stats.go BuiltinStats. Steps (int64[T], ms) are listed if their samples are known."""
    timings = ",".join(
        f'"{name}":{encode_number(getattr(stats.timings, name))}'
        for name in (
            "evalTotalTime",
            "resultSortTime",
            "queryPreparationTime",
            "innerEvalTime",
            "execQueueTime",
            "execTotalTime",
        )
    )
    counts = stats.samples
    total = _encode_steps("totalQueryableSamplesPerStep", steps, counts.per_step)
    read = _encode_steps("samplesReadPerStep", steps, counts.read_per_step)
    samples = (
        f'{total}"totalQueryableSamples":{counts.total},{read}"samplesRead":{counts.read},"peakSamples":{counts.peak}'
    )
    return f'{{"timings":{{{timings}}},"samples":{{{samples}}}}}'.encode()


def _encode_steps(name: str, steps: NDArray[np.int64] | None, counts: NDArray[np.int64] | None) -> str:
    if steps is None or counts is None or not len(steps):
        return ""
    listed = ",".join(
        f"[{encode_number(at / 1000)},{count}]" for at, count in zip(steps.tolist(), counts.tolist(), strict=True)
    )
    return f'"{name}":[{listed}],'


def encode_value(value: Value) -> bytes:
    """The `result` of a query, as JSON alone."""
    return bytes(_encode_value(value))


def _encode_value(value: Value) -> bytes | memoryview:
    """The `result` of a query."""
    if isinstance(value, Matrix | Vector) and (value.histograms is not None or len(value.values) <= _FEW):
        return encode_mixed(value)
    if isinstance(value, Matrix):
        return _encode_points(value.labels, value.offsets, value.timestamps, value.values, matrix=True)
    if isinstance(value, Vector):
        count = len(value)
        times = np.full(count, value.timestamp, np.int64)
        return _encode_points(value.labels, np.arange(count + 1, dtype=np.int64), times, value.values, matrix=False)
    if isinstance(value, Scalar):
        return f'[{encode_timestamp(value.timestamp)},"{encode_float(value.value)}"]'.encode()
    assert isinstance(value, String)
    return f"[{encode_timestamp(value.timestamp)},".encode() + encode_string(value.value) + b"]"


def encode_mixed(value: Vector | Matrix) -> bytes:
    """An answer with native histograms, or a small one. Upstream: marshalSeriesJSON, marshalSampleJSON."""
    parts = []
    if isinstance(value, Vector):
        at = encode_timestamp(value.timestamp)
        for labels, point in value.items():
            if isinstance(point, FloatHistogram):
                text = f'"histogram":[{at},{encode_histogram(point)}]'
            else:
                text = f'"value":[{at},"{encode_float(point)}"]'
            parts.append(b'{"metric":' + encode_labels(labels) + b"," + text.encode() + b"}")
        return b"[" + b",".join(parts) + b"]"
    for labels, points in value.items():
        floats, histograms = [], []
        for at, point in points:
            if isinstance(point, FloatHistogram):
                histograms.append(f"[{encode_timestamp(at)},{encode_histogram(point)}]")
            else:
                floats.append(f'[{encode_timestamp(at)},"{encode_float(point)}"]')
        body = b'{"metric":' + encode_labels(labels)
        for name, found in (("values", floats), ("histograms", histograms)):
            if found:
                body += f',"{name}":[{",".join(found)}]'.encode()
        parts.append(body + b"}")
    return b"[" + b",".join(parts) + b"]"


_EDGES = {("(", "]"): 0, ("[", ")"): 1, ("(", ")"): 2, ("[", "]"): 3}


def encode_histogram(histogram: FloatHistogram) -> str:
    """Count, sum, and the buckets that are not empty. Upstream: jsonutil.MarshalHistogram."""
    buckets = []
    for low, high, count in zip(*(each.tolist() for each in histogram.buckets()), strict=True):
        if count:
            edges = _EDGES[boundaries(histogram, low, high)]
            buckets.append(f'[{edges},"{encode_float(low)}","{encode_float(high)}","{encode_float(count)}"]')
    listed = f',"buckets":[{",".join(buckets)}]' if buckets else ""
    return f'{{"count":"{encode_float(histogram.count)}","sum":"{encode_float(histogram.sum)}"{listed}}}'


def _encode_points(
    labels: LabelColumns,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    matrix: bool,
) -> bytes | memoryview:
    if len(labels) == 0:
        return b"[]"
    metrics, metric_offsets = _encode_metrics(labels)
    values, timestamps, offsets = (np.ascontiguousarray(each) for each in (values, timestamps, offsets))
    kinds = np.empty(len(values), np.uint8)
    _tell_kinds(values, kinds)
    hard = values[kinds <= _ODD]
    digits = np.frombuffer(orjson.dumps(hard, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)
    grid = _step_grid(offsets, timestamps)
    step_texts, step_sizes = np.empty(grid.count * _STEP_BYTES, np.uint8), np.empty(grid.count, np.uint8)
    _write_steps(grid.first, grid.step, step_texts, step_sizes)
    size = len(metrics) + len(labels) * 32 + len(timestamps) * (grid.text_bytes + 6) + _SLACK_BYTES
    size += (len(values) - len(hard)) * _EASY_BYTES_MAX + len(digits) + np.count_nonzero(kinds == _ODD) * _ODD_BYTES_MAX
    # Half as much again is never touched, but glibc keeps twice the largest block freed so far: room for digits,
    # text and body of the next answer. Without, their pages come anew from the system, at twice the whole time.
    out = np.empty(size + size // 2, np.uint8)
    length = np.zeros(1, np.int64)
    _write_points(
        digits,
        values,
        kinds,
        grid.first,
        grid.step,
        step_texts,
        step_sizes,
        timestamps,
        offsets,
        metrics,
        metric_offsets,
        matrix,
        out,
        length,
    )
    return memoryview(out)[: int(length[0])]


class _StepGrid(NamedTuple):
    """Times on which most points seem to lie; none if texts of their own would not pay."""

    first: int
    step: int
    count: int
    text_bytes: int  # of the longest timestamp of any point


def _step_grid(offsets: NDArray[np.int64], timestamps: NDArray[np.int64]) -> _StepGrid:
    """The step is the smallest one of the longest series: a guess, and points off the grid only cost more."""
    if len(timestamps) == 0:
        return _StepGrid(0, 1, 0, 0)
    first, last = int(timestamps.min()), int(timestamps.max())
    text_bytes = len(f"-{max(abs(first), abs(last)) // 1000}.999")
    longest = int(np.argmax(np.diff(offsets)))
    times = timestamps[offsets[longest] : offsets[longest + 1]]
    step = int(np.diff(times).min()) if len(times) > 1 else 1
    count = (last - first) // step + 1 if step > 0 else 0
    return _StepGrid(first, max(step, 1), count if count * 2 <= len(timestamps) else 0, text_bytes)


def _encode_metrics(labels: LabelColumns) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The label sets as objects, back to back: bytes and int64[S + 1] offsets."""
    used, inverse = np.unique(labels.codes, return_inverse=True)
    strings = labels.table.strings
    texts, text_offsets = _flat_strings([strings[code] for code in used.tolist()])
    names = [encode_string(name, html=False) + b":" for name in labels.names]
    present = labels.codes != 0
    codes = np.where(present, inverse.reshape(labels.codes.shape), -1).astype(np.int32)
    text_sizes = np.append(np.diff(text_offsets), 0)
    name_sizes = np.array([len(name) for name in names], np.int64)
    # Every label costs its name, its value and a comma; every set two braces.
    total = (
        int(text_sizes[codes].sum() + present.sum(axis=0) @ (name_sizes + 1)) + 2 * len(labels)
        if names
        else 2 * len(labels)
    )
    out = np.empty(total, np.uint8)
    offsets = np.empty(len(labels) + 1, np.int64)
    _join_labels(codes, *_flat(names), texts, text_offsets, out, offsets)
    return out[: int(offsets[-1])], offsets


def _flat(texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(b"".join(texts) or b"\0", np.uint8), offsets


def _flat_strings(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as JSON strings of label sets, back to back: bytes and offsets."""
    joined = "".join(texts)
    if not (joined.isascii() and joined.isprintable()) or '"' in joined or "\\" in joined:
        return _flat([encode_string(text, html=False) for text in texts])
    # Nothing to escape, and as many bytes as characters.
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 2, out=offsets[1:])
    return np.frombuffer(('"' + '""'.join(texts) + '"').encode(), np.uint8), offsets


@kernel
def _join_labels(
    codes: I32x2, names: U8, name_offsets: I64, texts: U8, text_offsets: I64, out: OutU8, offsets: OutI64
) -> None:
    """Writes `{name:text,...}` of each row; code -1: the row has no such label. `out` is large enough."""
    at = np.int64(0)
    for row in range(codes.shape[0]):
        offsets[row] = at
        out[at] = 123
        at += 1
        first = True
        for column in range(codes.shape[1]):
            code = codes[row, column]
            if code < 0:
                continue
            if not first:
                out[at] = 44
                at += 1
            first = False
            size = name_offsets[column + 1] - name_offsets[column]
            copy_bytes(out, at, names, name_offsets[column], size)
            at += size
            size = text_offsets[code + 1] - text_offsets[code]
            copy_bytes(out, at, texts, text_offsets[code], size)
            at += size
        out[at] = 125
        at += 1
    offsets[codes.shape[0]] = at


@device
def _put(out: Any, at: Any, text: Any) -> Any:
    for byte in text:
        out[at] = byte
        at += 1
    return at


@device
def _eight_digits(number: Any) -> Any:
    """The digits of a number < 10**8, one a byte, the first in the lowest; by parallel divisions inside one word."""
    high = number // np.uint64(10_000)
    word = high | (number - high * np.uint64(10_000)) << np.uint64(32)
    # x * 10486 >> 20 is x // 100 for x < 10**4, x * 103 >> 10 is x // 10 for x < 100.
    high = (word * np.uint64(10_486) >> np.uint64(20)) & np.uint64(0x7F_0000_007F)
    word = high | (word - high * np.uint64(100)) << np.uint64(16)
    high = (word * np.uint64(103) >> np.uint64(10)) & np.uint64(0x000F_000F_000F_000F)
    return high | (word - high * np.uint64(10)) << np.uint64(8)


@device
def _put_short(out: Any, at: Any, number: Any) -> Any:
    """Writes a number < 10**8 without leading zeros, and up to 8 bytes of anything behind it."""
    word = _eight_digits(number)
    # The last digit stays, even a zero.
    skipped = trailing_zeros(word | np.uint64(1 << 56)) >> 3
    store64_le(out, at, (word | np.uint64(0x3030_3030_3030_3030)) >> np.uint64(skipped * 8))
    return at + 8 - skipped


@device
def _put_integer(out: Any, at: Any, number: Any) -> Any:
    """Writes a number >= 0 in decimal, and up to 8 bytes of anything behind it."""
    zeros = np.uint64(0x3030_3030_3030_3030)
    base = np.uint64(100_000_000)
    low = np.uint64(number)
    if low < base:
        return _put_short(out, at, low)
    middle = low // base
    low -= middle * base
    if middle < base:
        at = _put_short(out, at, middle)
    else:
        high = middle // base
        at = _put_short(out, at, high)
        store64_le(out, at, _eight_digits(middle - high * base) | zeros)
        at += 8
    store64_le(out, at, _eight_digits(low) | zeros)
    return at + 8


@device
def _put_timestamp(out: Any, at: Any, timestamp: Any) -> Any:
    rest = np.uint64(timestamp)
    if timestamp < 0:
        out[at] = 45
        at += 1
        rest = np.uint64(0) - rest
    seconds = rest // np.uint64(1000)
    fraction = rest - seconds * np.uint64(1000)
    high = seconds // np.uint64(100_000_000)
    if high:
        at = _put_short(out, at, high)
        low = seconds - high * np.uint64(100_000_000)
        store64_le(out, at, _eight_digits(low) | np.uint64(0x3030_3030_3030_3030))
        at += 8
    else:
        at = _put_short(out, at, seconds)
    if fraction:
        # The last three of eight digits, behind a point.
        store64_le(out, at, _eight_digits(fraction) >> np.uint64(32) | np.uint64(0x3030_302E))
        at += 4
    return at


@device
def _put_step(out: Any, at: Any, timestamp: Any) -> Any:
    """Writes the start of a point."""
    out[at] = 91
    at = _put_timestamp(out, at + 1, timestamp)
    out[at] = 44
    out[at + 1] = 34
    return at + 2


@device
def _put_plain(out: Any, at: Any, digits: Any, start: Any) -> Any:
    """Copies up to the next comma and up to 8 bytes more; returns (at, position of the comma)."""
    ones = np.uint64(0x0101_0101_0101_0101)
    commas = np.uint64(0x2C2C_2C2C_2C2C_2C2C)
    read = start
    while True:
        word = load64_le(digits, read)
        store64_le(out, at, word)
        other = word ^ commas
        found = (other - ones) & ~other & np.uint64(0x8080_8080_8080_8080)
        if found:
            size = trailing_zeros(found) >> 3
            return at + size, read + size
        at += 8
        read += 8


@device
def _put_value(out: Any, at: Any, digits: Any, start: Any, value: Any) -> Any:
    """Rewrites one JSON number of orjson, which begins at digits[start]; returns (at, position after the number)."""
    read = start
    if digits[read] == 110:  # null
        if value != value:
            at = _put(out, at, b"NaN")
        elif value > 0:
            at = _put(out, at, b"+Inf")
        else:
            at = _put(out, at, b"-Inf")
        return at, read + 4
    if digits[read] == 45:
        out[at] = 45
        at += 1
        read += 1
    mantissa = read
    point = np.int64(-1)
    while True:
        byte = digits[read]
        if byte == 46:
            point = read
        elif byte < 48 or byte > 57:
            break
        read += 1
    if digits[read] != 101:
        # Plain notation: only the `.0` of whole numbers goes.
        stop = read
        if point == read - 2 and digits[read - 1] == 48:
            stop = point
        for place in range(mantissa, stop):
            out[at] = digits[place]
            at += 1
        return at, read
    stop = read
    read += 1
    negative = False
    if digits[read] == 45:
        negative = True
        read += 1
    elif digits[read] == 43:
        read += 1
    exponent = np.int64(0)
    while 48 <= digits[read] <= 57:
        exponent = exponent * 10 + np.int64(digits[read]) - 48
        read += 1
    size = abs(value)
    if size < 1e-6 or size >= 1e21:
        for place in range(mantissa, stop):
            out[at] = digits[place]
            at += 1
        out[at] = 101
        out[at + 1] = 45 if negative else 43
        at += 2
        if exponent < 10:
            out[at] = 48
            at += 1
        return _put_integer(out, at, exponent), read
    # Written out: one digit, a point, the rest, shifted by the exponent.
    if negative:
        out[at] = 48
        out[at + 1] = 46
        at += 2
        for _ in range(exponent - 1):
            out[at] = 48
            at += 1
        for place in range(mantissa, stop):
            if place != point:
                out[at] = digits[place]
                at += 1
        return at, read
    left = exponent + 1
    for place in range(mantissa, stop):
        if place == point:
            continue
        if left == 0:
            out[at] = 46
            at += 1
        out[at] = digits[place]
        at += 1
        left -= 1
    for _ in range(left):
        out[at] = 48
        at += 1
    return at, read


@kernel
def _tell_kinds(values: F64, kinds: OutU8) -> None:
    """Tells how each value is written: plain and odd ones need a search for their shortest digits.

    No two decimals of at most 15 digits are the same float: if such a one is found, it is the shortest text.
    The quotient of two exact integers is the float nearest to that decimal.
    """
    for at in range(len(values)):
        value = values[at]
        size = abs(value)
        thousandths = np.floor(size * 1000.0 + 0.5)
        if size < 9007199254740992.0 and np.floor(size) == size:
            kinds[at] = _WHOLE
        elif thousandths < 1e15 and thousandths / 1000.0 == size:
            kinds[at] = _THOUSANDTHS
        elif size != size:
            kinds[at] = _NAN
        else:
            # orjson writes an exponent only far outside of these bounds.
            kinds[at] = _PLAIN_DIGITS if 1e-4 <= size < 1e15 else _ODD


@kernel
def _write_steps(first: int, step: int, texts: OutU8, sizes: OutU8) -> None:
    """Writes how a point starts at each step of a grid, 24 bytes apart."""
    text = np.empty(64, np.uint8)
    for slot in range(len(sizes)):
        sizes[slot] = _put_step(text, 0, first + slot * step)
        copy_bytes(texts, slot * _STEP_BYTES, text, 0, _STEP_BYTES)


@kernel
def _write_points(
    digits: U8,
    values: F64,
    kinds: U8,
    first_step: int,
    step: int,
    step_texts: U8,
    step_sizes: U8,
    timestamps: I64,
    offsets: I64,
    metrics: U8,
    metric_offsets: I64,
    matrix: bool,
    out: OutU8,
    length: OutI64,
) -> None:
    """Writes the list of all series.

    Args:
        digits: the plain and odd ones of `values` as a JSON list by orjson.
        kinds: by `_tell_kinds`.
        first_step, step, step_texts, step_sizes: a grid, which has no step before the first point, by `_write_steps`.
        metrics, metric_offsets: label sets as objects, one a series.
        matrix: each series has a list of points; otherwise exactly one point.
        out: large enough; `length[0]` is what was used.
    """
    # No plain number is longer than four words with its comma, those at the end have no such room behind them.
    last_plain = len(digits) - 32
    steps = np.uint64(len(step_sizes))
    slot = np.uint64(0)
    read = np.int64(1)
    at = np.int64(0)
    out[at] = 91
    at += 1
    for series in range(len(offsets) - 1):
        if series > 0:
            out[at] = 44
            at += 1
        at = _put(out, at, b'{"metric":')
        size = metric_offsets[series + 1] - metric_offsets[series]
        copy_bytes(out, at, metrics, metric_offsets[series], size)
        at += size
        first, last = offsets[series], offsets[series + 1]
        if last > first:
            if matrix:
                at = _put(out, at, b',"values":[')
            else:
                at = _put(out, at, b',"value":')
            for point in range(first, last):
                timestamp = timestamps[point]
                # Mostly the step after the one before; never below the first, so unsigned numbers do.
                slot += np.uint64(1)
                passed = np.uint64(timestamp) - np.uint64(first_step)
                if slot >= steps or slot * np.uint64(step) != passed:
                    slot = passed // np.uint64(step)
                if slot < steps and slot * np.uint64(step) == passed:
                    text = np.int64(slot) * _STEP_BYTES
                    store64_le(out, at, load64_le(step_texts, text))
                    store64_le(out, at + 8, load64_le(step_texts, text + 8))
                    store64_le(out, at + 16, load64_le(step_texts, text + 16))
                    at += np.int64(step_sizes[slot])
                else:
                    at = _put_step(out, at, timestamp)
                value = values[point]
                kind = kinds[point]
                if kind <= _ODD:
                    if kind == _PLAIN_DIGITS and read <= last_plain:
                        at, read = _put_plain(out, at, digits, read)
                    else:
                        at, read = _put_value(out, at, digits, read, value)
                    read += 1
                elif kind == _NAN:
                    store64_le(out, at, np.uint64(0x4E614E))
                    at += 3
                else:
                    number = np.uint64(abs(value))
                    thousandths = np.uint64(0)
                    if kind == _THOUSANDTHS:
                        scaled = np.uint64(abs(value) * 1000.0 + 0.5)
                        number = scaled // np.uint64(1000)
                        thousandths = scaled - number * np.uint64(1000)
                    out[at] = 45
                    at += np.int64(float_to_bits(value) >> np.uint64(63))
                    at = (
                        _put_short(out, at, number)
                        if number < np.uint64(100_000_000)
                        else _put_integer(out, at, number)
                    )
                    if thousandths:
                        # The last three of eight digits, behind a point; their zeros at the end go.
                        word = _eight_digits(thousandths) >> np.uint64(32)
                        store64_le(out, at, word | np.uint64(0x3030_302E))
                        at += 4 - (leading_zeros(word) - 32 >> 3)
                store64_le(out, at, np.uint64(0x2C5D22))
                at += 3
            at -= 1
            if matrix:
                out[at] = 93
                at += 1
        out[at] = 125
        at += 1
    out[at] = 93
    length[0] = at + 1
