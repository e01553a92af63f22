"""What kernels are listened to under: everything that the package does with arrays, at a size that fills caches."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from mimir_ray.clock import SystemClock
from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection, Shard
from mimir_ray.model.series import STALE_NAN, SeriesBatch
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.functions import RANGE_FUNCTIONS
from mimir_ray.roles.distributor.canonical import split_sections
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.tombstones import Tombstones
from mimir_ray.tsdb.block.verify import verify_block
from mimir_ray.tsdb.chunks.xor import decode_chunk, encode_chunk
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.merge import merge_batches
from mimir_ray.tsdb.wal.writer import WalSettings
from mimir_ray.wire.exemplars import read_exemplars
from mimir_ray.wire.otlp.translate import OtlpSettings, scan_otlp
from mimir_ray.wire.pb.prompb.remote_pb2 import WriteRequest
from mimir_ray.wire.pb.prompb.types_pb2 import Label, TimeSeries
from mimir_ray.wire.query_json import query_response
from mimir_ray.wire.remote_write import created_timestamps, scan_write_request
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2

FOLDER = Path(__file__).resolve().parents[1]
INTERVAL_MS = 15_000
END_MS = 1_700_000_000_000 // INTERVAL_MS * INTERVAL_MS
SERIES, HOURS = 5_000, 1.0
SETTINGS = DatabaseSettings(
    HeadSettings(dropped_series_min=100), WalSettings(fsync="off"),
)  # fmt: skip


def benchmark(path: str) -> ModuleType:
    """Another benchmark, as a module."""
    file = FOLDER / path
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _loaded(folder: str, series: int = SERIES, hours: float = HOURS) -> Database:
    database = Database(Path(folder), SETTINGS, SystemClock())
    benchmark("promql/bench_engine.py").load(database, series, hours, END_MS)
    return database


def queries() -> None:
    """Every kind of expression over counters, gauges and buckets."""
    parameters = {
        "predict_linear": "g40[5m], 60", "double_exponential_smoothing": "g40[5m], 0.5, 0.5",
        "quantile_over_time": "0.9, g40[5m]",
    }  # fmt: skip
    asked = [f"{name}({parameters.get(name, 'c12_total[5m]')})" for name in RANGE_FUNCTIONS]
    asked += [f"{op} by (namespace) ({{__name__=~'g.*'}})" for op in ("sum", "avg", "min", "max", "count", "group")]
    asked += [f"{op} by (namespace) ({{__name__=~'g.*'}})" for op in ("stddev", "stdvar")]
    asked += [f"{op}(5, {{__name__=~'g.*'}})" for op in ("topk", "bottomk", "limitk")]
    asked += [
        "quantile by (job) (0.5, {__name__=~'g.*'})", "count_values('v', round(g40))", "limit_ratio(0.5, g40)",
        "g40 / on (pod) g41", "g40 and on (pod) g41", "g40 or g41", "g40 unless on (pod) g41 > 100", "g40 > bool 100",
        "histogram_quantile(0.9, latency_seconds_bucket)", "histogram_fraction(0, 0.1, latency_seconds_bucket)",
        "histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[5m])))", "g40 % 7", "g40 ^ 2",
        "clamp(g40, 90, 110)", "ln(g40)", "log2(g40)", "log10(g40)", "hour(g40)",
        "vector(max_of(time(), 5))", "vector(min_of(time(), 5))", "sort(g40)",
        "label_replace(g40, 'x', '$1', 'pod', 'pod-(.*)')",
        "rate(c12_total[5m] anchored)", "rate(c12_total[5m] smoothed)", "changes(c12_total[5m] anchored)",
        "g40 smoothed",
        "{__name__=~'latency.*|g4.'}", "max_over_time(sum(rate(c12_total[5m]))[30m:1s])", "sum({__name__=~'g.*'})",
        "{__name__=~'g.*',pod!='pod-1',node=~'node-.*'}", "absent(nothing)", "sum without (pod) ({__name__=~'c1.*'})",
        "-g40 or g40",
    ]  # fmt: skip
    engine = Engine(EngineOptions())
    with tempfile.TemporaryDirectory() as folder:
        database = _loaded(folder)
        source = benchmark("promql/bench_engine.py").Owner(database)
        for query in asked:
            for one, stats in ((database, False), (source, True)):
                query_response(engine.range(query, one, END_MS - 1_800_000, END_MS, INTERVAL_MS, stats=stats))
        for query in ("{__name__=~'c.*'}[10m]", "c12_total[10m] anchored"):
            engine.instant(query, database, END_MS)
        sharded = Selection((Matcher(MatchType.REGEX, "pod", "pod-.*"),), 0, END_MS, Shard(0, 2))
        assert list(database.select(sharded))
        database.label_names(sharded)
        database.label_values("pod", sharded)
        database.close()


def database() -> None:
    """Series and samples of all sorts, in order and late; checkpoint, restart, blocks, series that go."""
    with tempfile.TemporaryDirectory() as folder:
        database = _loaded(folder)
        limits = PushLimits(out_of_order_window_ms=7_200_000)
        everything = Selection((), 0, 1 << 60, start_timestamps=True)
        head = database.head
        references = np.arange(SERIES, dtype=np.int32)
        none = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
        for back in range(40, 0, -1):
            times = np.full(SERIES, END_MS - back * 7_001)
            late = WriteBatch(
                DEFAULT_TENANT, head.incarnation, references, times, np.ones(SERIES), b"", np.zeros(1, np.int64), *none,
                start_timestamps=times - 1000 * (back // 8 + 1),
            )  # fmt: skip
            database.push([late], END_MS, limits)
            if back == 20:
                database.flush()
        for batch in database.select(everything):
            assert len(batch)
        began = WriteBatch(
            DEFAULT_TENANT, head.incarnation, references, np.full(SERIES, END_MS), np.ones(SERIES),
            start_timestamps=np.full(SERIES, END_MS - 1), zeros_within_ms=60_000,
        )  # fmt: skip
        database.push([began], END_MS, limits)
        stale = WriteBatch(
            DEFAULT_TENANT, head.incarnation, references, np.full(SERIES, END_MS + 1), np.full(SERIES, STALE_NAN)
        )
        database.push([stale], END_MS, limits)
        engine = Engine(EngineOptions(use_start_timestamps=True, enable_delayed_name_removal=True))
        for name in ("rate", "irate", "resets", "changes"):
            engine.instant(f"sum({name}({{__name__=~'c.*'}}[1h]))", database, END_MS + 1)
        labels = [labels_of({"__name__": "c12_total", "pod": f"pod-{at}", "n": str(at)}) for at in range(500)]
        trace = labels_of({"trace_id": "0123456789abcdef"})
        more = write_batch(new=[(one, [(END_MS, 1.0)]) for one in labels],
                           exemplars=[(one, trace, END_MS, 1.0) for one in labels])  # fmt: skip
        database.push([more], END_MS, PushLimits(exemplars_max=10_000))
        database.exemplars([(Matcher(MatchType.REGEX, "pod", ".+"),)], 0, 1 << 60)
        head.series_tokens(0, 1)
        head.active_series(0, ((Matcher(MatchType.EQUAL, "job", "api"),),))
        database.label_values("pod", Selection((Matcher(MatchType.EQUAL, "job", "api"),), 0, 1 << 60))
        database.checkpoint()
        database.close()
        database = Database(Path(folder), SETTINGS, SystemClock())
        assert database.compact_whole()
        for meta in database.blocks.metas:
            verify_block(database.blocks.path(meta.ulid))
        again = write_batch(new=[(one, [(END_MS + 60_000, 1.0)]) for one in labels])
        database.push([again], END_MS)
        database.head.collect(1 << 40)
        database.head.renumber()
        database.close()


def blocks() -> None:
    """Blocks of floats and histograms: written, read, merged, split, verified, with deletions."""
    benchmark("tsdb/bench_block.py").main(1_000, 240)


def compaction() -> None:
    """Replicas merged and split by compactors."""
    benchmark("roles/bench_compactor.py").main(400, 3, 2)


def requests() -> None:
    """Remote write of both versions to distributors: known and new series, sorted or not, with all rules."""
    module = benchmark("wire/bench_write_path.py")
    body, odd, body_2 = module.request_of(), module.request_of(canonical=False), module.request_2_of()
    for sent, version in ((body, "1.0"), (odd, "1.0"), (body_2, "2.0")):
        for new in (False, True):
            module.pushes(sent, 5, 3, new, version)
    module.pushes(body, 1, 1, True, **module.all_rules())
    benchmark("roles/bench_new_series.py").main(module.SERIES)
    several = module.v2.Request.FromString(body_2)
    for one in several.timeseries:
        one.samples.add(timestamp=module.NOW_MS + 1, value=1.0)
    scan_write_request_v2(several.SerializeToString(), module.KEY)
    request = WriteRequest.FromString(body)
    twice, created = bytearray(), bytearray()
    for at, series in enumerate(request.timeseries):
        exemplar = series.exemplars.add(timestamp=at, value=1.0)
        exemplar.labels.add(name="trace_id", value=f"{at:032x}")
        raw = series.SerializeToString() + b"\x30\x01"  # created_timestamp = 6, which is Mimir's
        created += b"\n" + encode_uvarint(len(raw)) + raw
        # The labels of a series in two places of its message.
        raw = series.SerializeToString() + TimeSeries(labels=[Label(name="zone", value="a")]).SerializeToString()
        twice += b"\n" + encode_uvarint(len(raw)) + raw
    scan = scan_write_request(request.SerializeToString(), module.KEY)
    read_exemplars(scan, 128)
    split_sections(scan.data, scan.label_start, scan.label_end)
    created_timestamps(scan_write_request(bytes(created), module.KEY))
    scan_write_request(bytes(twice), module.KEY)


def otlp() -> None:
    """Requests of the OpenTelemetry protocol."""
    module = benchmark("wire/bench_otlp.py")
    for kind in ("sum", "histogram", "exponential_histogram"):
        found = scan_otlp(module.request(kind), (1, 2, 3, 4), OtlpSettings())
        found.need_labels(np.arange(len(found)))


def chunks() -> None:
    """Chunks of one series and of many, with start timestamps; replicas that are merged; deletions."""
    count, samples = 1_000, 240
    times = np.tile(END_MS + np.arange(samples) * INTERVAL_MS, count)
    offsets = np.arange(count + 1, dtype=np.int64) * samples
    random = np.random.default_rng(1)
    values = np.cumsum(random.integers(0, 30, count * samples)).astype(np.float64)
    decode_chunk(encode_chunk(times[:240], values[:240]))
    runs = Samples(offsets, times, values, start_timestamps=times - INTERVAL_MS)
    table, data = encode_runs(runs)
    decoded = decode([data], table.sources, table.starts, table.starts + table.lengths, table.encodings)
    stones = Tombstones(np.arange(count), np.full(count, END_MS), np.full(count, END_MS + 600_000))
    decoded.without_deleted(np.repeat(np.arange(count), 2), stones)
    labels = LabelColumns.from_labels([labels_of({"__name__": "x", "n": str(at)}) for at in range(count)])
    replicas = [[SeriesBatch(labels, offsets, times, values)], [SeriesBatch(labels, offsets, times, values)]]
    assert list(merge_batches(replicas))


def bucket() -> None:
    """Blocks in a bucket, read by a store-gateway."""
    benchmark("bucket/bench_store_gateway.py").main(500, 4, "", 2, INTERVAL_MS)


def histograms() -> None:
    """Native histograms: pushed, queried."""
    benchmark("promql/bench_histograms.py").main()


WORKLOADS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (queries, database, blocks, compaction, requests, otlp, chunks, bucket, histograms)
}
