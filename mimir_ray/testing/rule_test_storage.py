"""Storage of a unit test of rules: a real head, into which input series come step by step and rules write.

Upstream: promql/promqltest LazyLoader.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimir_ray.errors import ClientError, InvalidArgument
from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import quote
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.roles.ruler.sample import Sample
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import PushLimits
from mimir_ray.wire.remote_write import label_section

from .promql_script import HistogramValue, SequenceValue, parse_series
from .promql_script_histograms import of_values
from .rule_test_file import InputSeries

# The first steps of series may be far apart in time; none of them is too old.
_ANY_AGE = PushLimits(out_of_order_window_ms=1 << 50)

_REASONS = {
    "sample-duplicate-timestamp": "duplicate sample for timestamp",
    "sample-out-of-order": "out of order sample",
    "sample-timestamp-too-old": "too old sample",
}


class SampleRefused(ClientError):
    """What Prometheus' storage says of a sample that it does not take."""


class RuleTestStorage:
    """`directory`: of this storage alone; the caller's to remove. Close it."""

    def __init__(self, directory: Path) -> None:
        self._files = ChunkFiles(directory)
        self.head = Head(self._files)

    def close(self) -> None:
        self._files.close()

    def write(self, samples: Sequence[Sample]) -> None:
        """Stores samples. Raises `SampleRefused`; those that were not refused are stored."""
        if not samples:
            return
        rows: dict[Labels, int] = {}
        series = [rows.setdefault(sample.labels, len(rows)) for sample in samples]
        sections = [label_section(labels) for labels in rows]
        histograms: list[FloatHistogram] = []
        values = np.empty(len(samples), np.float64)
        for at, sample in enumerate(samples):
            if isinstance(sample.value, FloatHistogram):
                values[at] = box(np.array([len(histograms)], np.int64))[0]
                histograms.append(sample.value)
            else:
                values[at] = sample.value
        batch = WriteBatch(
            tenant=DEFAULT_TENANT,
            incarnation=self.head.incarnation,
            references=np.zeros(0, np.int32),
            timestamps=np.zeros(0, np.int64),
            values=np.zeros(0, np.float64),
            label_bytes=b"".join(sections),
            label_offsets=np.cumsum([0, *map(len, sections)], dtype=np.int64),
            new_series=np.array(series, np.int32),
            new_timestamps=np.array([sample.time_ms for sample in samples], np.int64),
            new_values=values,
            histograms=HistogramColumns.from_rows(histograms) if histograms else None,
        )
        (result,) = self.head.push([batch], int(batch.new_timestamps[-1]), _ANY_AGE)
        if result.error is not None:
            raise result.error
        if result.refusals:
            reason = result.refusals[0].reason
            raise SampleRefused(_REASONS.get(reason, reason))


class InputData:
    """The input series of a test, handed out by time."""

    def __init__(self, series: Sequence[InputSeries], step_ms: int, start_ms: int) -> None:
        """Raises `InvalidArgument` with the line that the series would have in a `load` command."""
        self._step_ms = step_ms
        self._start_ms = start_ms
        self._next = 0
        # Later lines of equal series replace earlier ones.
        known: dict[Labels, list[float | FloatHistogram | None]] = {}
        for number, one in enumerate(series, 2):
            labels, values = parse_input(f"{one.series} {one.values}".strip(), number)
            known[labels] = plain_values(values)
        self._series = known
        self._length = max(map(len, known.values()), default=0)

    def until(self, time_ms: int) -> list[Sample]:
        """Everything up to a time that was not handed out before."""
        end = min((time_ms - self._start_ms) // self._step_ms + 1, self._length) if self._step_ms else self._length
        out: list[Sample] = []
        for labels, values in self._series.items():
            for step in range(self._next, min(end, len(values))):
                value = values[step]
                if value is not None:
                    out.append(Sample(labels, self._start_ms + step * self._step_ms, value))
        self._next = max(self._next, end)
        out.sort(key=lambda sample: sample.time_ms)
        return out


class _Lines:
    """Stands for the lines of a script where there is one line only."""

    def error(self, reason: str) -> InvalidArgument:
        return InvalidArgument(reason)


def parse_input(text: str, line: int) -> tuple[Labels, tuple[SequenceValue, ...]]:
    """A series and its values. Raises `InvalidArgument`, its position in that line."""
    try:
        return parse_series(_Lines(), text)  # type: ignore[arg-type]
    except InvalidArgument as error:
        said = error.describe()
        if said.startswith("1:"):
            raise InvalidArgument(f"{line}{said[1:]}") from None
        raise InvalidArgument(f"{line}:{_fault(said, text)}") from None


_FAULT = re.compile(r"(invalid value in series|bad histogram descriptor found): (.+)", re.DOTALL)


def _fault(said: str, text: str) -> str:
    """What the script reader says of a value, as Prometheus' parser does: column and the word at fault."""
    found = _FAULT.match(said)
    if found is None:
        return f" {said}"
    rest = ast.literal_eval(found[2])
    column = len(text[: text.rfind(rest)].encode()) + 1
    words = re.match(r"\w+", rest)
    word = quote(words[0] if words else rest[:1])
    what = f"unexpected {word}" if found[1].startswith("invalid") else f"bad histogram descriptor found: {word}"
    return f"{column}: parse error: {what}"


def plain_values(values: Sequence[SequenceValue]) -> list[float | FloatHistogram | None]:
    """Values with histograms made; None: nothing at that step."""
    histograms = iter(of_values([value for value in values if isinstance(value, HistogramValue)]))
    return [next(histograms) if isinstance(value, HistogramValue) else value for value in values]
