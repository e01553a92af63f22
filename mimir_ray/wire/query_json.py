"""Prometheus' JSON of answers and errors, byte for byte, fast for large matrices.

Floats: orjson writes the shortest digits of whole columns, and a kernel puts them between timestamps and
quotes in the notation of Go's strconv ('f' for 1e-6 <= |x| < 1e21, otherwise 'e' with two digits of
exponent). Label sets: every string is encoded once a query, a kernel joins them by their codes.

Upstream: web/api/v1/json_codec.go, util/jsonutil/marshal.go, json-iterator for the rest: label sets are
written as they are, other strings with `<`, `>`, `&` escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import F64, I64, U8, I32x2, OutI64, OutU8, device, kernel
from mimir_ray.model.float_histogram import FloatHistogram, boundaries
from mimir_ray.model.labels import LabelColumns, Labels, is_utf8
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.result import Matrix, QueryResult, QueryStats, Scalar, String, Value, Vector

# The longest point: [-9223372036854775.808,"-0.0000012345678901234567"],
_POINT_BYTES_MAX = 64

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
    size = abs(value)
    if size and (size < 1e-6 or size >= 1e21):
        mantissa, exponent = np.format_float_scientific(value, unique=True, trim="-", exp_digits=2).split("e")
        return f"{mantissa}e{exponent}"
    return np.format_float_positional(value, unique=True, trim="-")


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
    parts = [b'{"status":"success","data":', data]
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
    parts = [b'{"resultType":"', result.type.encode(), b'","result":', encode_value(result.value)]
    if stats:
        parts += [b',"stats":', encode_stats(result.stats, steps if stats == "all" else None)]
    parts.append(b"}")
    return success(b"".join(parts), result.warnings, result.infos)


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
    samples = f'"totalQueryableSamples":{stats.samples.total},"peakSamples":{stats.samples.peak}'
    if steps is not None and stats.samples.per_step is not None and len(steps):
        listed = ",".join(
            f"[{encode_number(at / 1000)},{count}]"
            for at, count in zip(steps.tolist(), stats.samples.per_step.tolist(), strict=True)
        )
        samples = f'"totalQueryableSamplesPerStep":[{listed}],{samples}'
    return f'{{"timings":{{{timings}}},"samples":{{{samples}}}}}'.encode()


def encode_value(value: Value) -> bytes:
    """The `result` of a query."""
    if isinstance(value, Matrix | Vector) and value.histograms is not None:
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
    """An answer with native histograms. Upstream: marshalSeriesJSON, marshalSampleJSON."""
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
) -> bytes:
    if len(labels) == 0:
        return b"[]"
    metrics, metric_offsets = _encode_metrics(labels)
    values = np.ascontiguousarray(values)
    digits = np.frombuffer(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)
    out = np.empty(len(metrics) + len(labels) * 32 + len(timestamps) * _POINT_BYTES_MAX + 2, np.uint8)
    length = np.zeros(1, np.int64)
    _write_points(
        digits,
        values,
        np.ascontiguousarray(timestamps),
        np.ascontiguousarray(offsets),
        metrics,
        metric_offsets,
        matrix,
        out,
        length,
    )
    return out[: int(length[0])].tobytes()


def _encode_metrics(labels: LabelColumns) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The label sets as objects, back to back: bytes and int64[S + 1] offsets."""
    used, inverse = np.unique(labels.codes, return_inverse=True)
    strings = labels.table.strings
    texts = [encode_string(strings[code], html=False) for code in used.tolist()]
    names = [encode_string(name, html=False) + b":" for name in labels.names]
    present = labels.codes != 0
    codes = np.where(present, inverse.reshape(labels.codes.shape), -1).astype(np.int32)
    text_sizes = np.array([len(text) for text in texts] + [0], np.int64)
    name_sizes = np.array([len(name) for name in names], np.int64)
    # Every label costs its name, its value and a comma; every set two braces.
    total = (
        int(text_sizes[codes].sum() + present.sum(axis=0) @ (name_sizes + 1)) + 2 * len(labels)
        if names
        else 2 * len(labels)
    )
    out = np.empty(total, np.uint8)
    offsets = np.empty(len(labels) + 1, np.int64)
    _join_labels(codes, *_flat(names), *_flat(texts), out, offsets)
    return out[: int(offsets[-1])], offsets


def _flat(texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(b"".join(texts) or b"\0", np.uint8), offsets


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
def _put_integer(out: Any, at: Any, number: Any) -> Any:
    """Writes a number >= 0 in decimal."""
    digits = np.int64(1)
    bound = np.uint64(10)
    rest = np.uint64(number)
    while digits < 19 and rest >= bound:
        digits += 1
        bound *= np.uint64(10)
    place = at + digits
    while place > at:
        place -= 1
        out[place] = np.uint8(48 + rest % np.uint64(10))
        rest //= np.uint64(10)
    return at + digits


@device
def _put_timestamp(out: Any, at: Any, timestamp: Any) -> Any:
    rest = np.uint64(timestamp)
    if timestamp < 0:
        out[at] = 45
        at += 1
        rest = np.uint64(0) - rest
    at = _put_integer(out, at, rest // np.uint64(1000))
    fraction = np.int64(rest % np.uint64(1000))
    if fraction:
        out[at] = 46
        out[at + 1] = 48 + fraction // 100
        out[at + 2] = 48 + fraction // 10 % 10
        out[at + 3] = 48 + fraction % 10
        at += 4
    return at


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
def _write_points(
    digits: U8,
    values: F64,
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
        digits: `values` as a JSON list by orjson.
        metrics, metric_offsets: label sets as objects, one a series.
        matrix: each series has a list of points; otherwise exactly one point.
        out: large enough; `length[0]` is what was used.
    """
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
                if point > first:
                    out[at] = 44
                    at += 1
                out[at] = 91
                at = _put_timestamp(out, at + 1, timestamps[point])
                out[at] = 44
                out[at + 1] = 34
                at, read = _put_value(out, at + 2, digits, read, values[point])
                read += 1
                out[at] = 34
                out[at + 1] = 93
                at += 2
            if matrix:
                out[at] = 93
                at += 1
        out[at] = 125
        at += 1
    out[at] = 93
    length[0] = at + 1
