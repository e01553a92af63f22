"""Decoders of what a process finds on its own disk after a restart: write-ahead log, checkpoints, rings, elections.

Nobody sends these bytes, but disks and people change them, and an intact checksum is no proof that we wrote them.
Checksums are put right after a change, as for blocks.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring import elections, persistence
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId, InstanceState, RingName
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.errors import Corruption
from mimir_ray.model.boxed import box
from mimir_ray.model.exemplars import ExemplarColumns
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import WriteBatch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.wal import checkpoint, reader
from mimir_ray.tsdb.wal.format import HEADER, record_header, segment_path
from mimir_ray.wire.protobuf import encode_labels
from mimir_ray.wire.remote_write import scan_write_request
from mimir_ray.wire.remote_write_histograms import read_histograms
from tests.fuzz import messages
from tests.fuzz.mutation import NUMBERS, of_bytes, of_json
from tests.fuzz.target import Target

NOW_MS = messages.NOW_MS
ALL = Selection((), -(1 << 62), 1 << 62)
HEAD = HeadSettings(exemplars_max=10)


def _batches() -> list[WriteBatch]:
    """One of everything that a head writes down."""
    names = [encode_labels([(b"__name__", b"up"), (b"n", str(number).encode())]) for number in range(4)]
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in names]))).astype(np.int64)
    four = np.arange(4, dtype=np.int32)
    times = np.full(4, NOW_MS, np.int64)
    trace = encode_labels([(b"trace_id", b"x")])
    plain = WriteBatch(
        TenantId("a"), 0, four[:0], times[:0], np.zeros(0), b"".join(names), offsets, four, times, np.arange(4.0),
        metadata=(Metadata("up", "gauge", "Whether.", "s"),), new_start_timestamps=times - 1000,
        exemplars=ExemplarColumns(
            four[:1], times[:1], np.ones(1), trace, np.array([0, len(trace)], np.int64),
            names[0], np.array([0, len(names[0])], np.int64),
        ),
    )  # fmt: skip
    later = WriteBatch(TenantId("a"), 0, four, times + 15_000, np.arange(4.0) * 0.7)
    late = WriteBatch(TenantId("a"), 0, four, times - 1000, np.arange(4.0))
    return [plain, later, late]


def _histograms() -> WriteBatch:
    scan = next(
        one for body in messages.write_requests(40) if (one := scan_write_request(body, (1, 2, 3, 4))).histograms
    )
    found = read_histograms(scan)
    section = encode_labels([(b"__name__", b"h")])
    count = len(found.columns)
    return WriteBatch(
        TenantId("a"), 0, np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0), section,
        np.array([0, len(section)], np.int64), np.zeros(count, np.int32),
        NOW_MS + 1000 * np.arange(count, dtype=np.int64), box(np.arange(count)), histograms=found.columns,
    )  # fmt: skip


@cache
def _files() -> tuple[bytes, bytes, bytes]:
    """A segment of a write-ahead log with every kind of record, one that ends torn, and a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        database = Database(Path(folder), DatabaseSettings(head=HEAD), SystemClock())
        limits = PushLimits(out_of_order_window_ms=3_600_000, exemplars_max=10)
        for batch in (*_batches(), _histograms()):
            batch.incarnation = database.head.incarnation
            (result,) = database.push([batch], NOW_MS, limits)
            assert result.error is None and not result.refusals, result
        database.head.truncate(NOW_MS + 1)
        assert database.head.collect(0) >= 0
        segment = segment_path(Path(folder, "wal"), 0).read_bytes()
        database.checkpoint()
        (path,) = Path(folder, "checkpoints").iterdir()
        saved = path.read_bytes()
        database.close()
    return segment, segment[:-3], saved


def _records(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while len(data) - at >= HEADER.size:
        length, _, kind = HEADER.unpack_from(data, at)
        found.append((kind, data[at + HEADER.size : at + HEADER.size + length]))
        at += HEADER.size + length
    return found


def _wal_mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.1:
        return of_bytes(rng, data, others)
    records = _records(data)
    at = rng.randrange(len(records)) if records else 0
    match rng.randrange(8):
        case 0 if records:
            del records[at]
        case 1 if records:
            records.insert(rng.randrange(len(records)), records[at])
        case 2 if records:
            records[at] = rng.randrange(12), records[at][1]
        case 3:
            rng.shuffle(records)
        case 4 if records and len(records[at][1]) >= 8:
            payload = bytearray(records[at][1])
            place = rng.randrange(0, len(payload) - 7, 4)
            payload[place : place + 8] = (rng.choice(NUMBERS) & ((1 << 64) - 1)).to_bytes(8, "little")
            records[at] = records[at][0], bytes(payload)
        case _ if records:
            records[at] = records[at][0], of_bytes(rng, records[at][1], (records[at][1],))
    return b"".join(record_header(kind, [payload], len(payload)) + payload for kind, payload in records)


def _wal(data: bytes) -> None:
    """Reads, repairs and replays a segment; what came of it is read, flushed, and read again."""
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        segment_path(Path(folder), 0).write_bytes(data)
        head = Head(ChunkFiles(Path(folder, "chunks_head")), HEAD)
        damage = None
        for record in reader.WalReader(Path(folder), None):
            try:
                head.replay(record.type, record.payload)
            except Corruption as error:
                damage = error
                break
        for _ in range(2):
            for batch in head.select(ALL):
                assert batch.offsets[-1] == len(batch.timestamps) == len(batch.values)
                batch.labels.to_labels()
            head.flush()
        head.exemplars([()], -(1 << 62), 1 << 62)
        if damage is not None:
            raise damage


def _checkpoint_mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Changes the description, with its checksum."""
    prefix = struct.Struct("<8sIII")
    if rng.random() < 0.2 or len(data) < prefix.size:
        return of_bytes(rng, data, others)
    magic, version, length, _ = prefix.unpack_from(data)
    header = of_json(rng, data[prefix.size : prefix.size + length], (b"{}",))
    start = prefix.size + length
    parts = data[start + -start % 64 :]
    whole = prefix.pack(magic, version, len(header), crc32c(header)) + header
    return whole + bytes(-len(whole) % 64) + parts


def _checkpoint(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        path = Path(folder, "checkpoint.00000001")
        path.write_bytes(data)
        found = [checkpoint.load_checkpoint(path, mapped) for mapped in (False, True)]
        assert repr(found[0].facts) == repr(found[1].facts)  # as text, since NaN is unequal to itself
        assert found[0].parts.keys() == found[1].parts.keys()


def _ring_seeds() -> list[bytes]:
    one = InstanceDesc(
        id=InstanceId("ingester-0"), address="a:1", zone="z", state=InstanceState.ACTIVE,
        tokens=np.array([1, 2, 1 << 31], np.uint32), registered_ms=5,
    )  # fmt: skip
    ring = RingName("ingester")
    plain = persistence.encode({ring: 3}, {ring: {one.id: one}})
    body = json.loads(plain)
    body["rings"]["ingester"]["replication"] = {
        "factor": 2, "since_ms": 1, "announced": 3, "announced_ms": 2, "settled_ms": 3, "blank_ms": 4,
        "past": [{"factor": 1, "since_ms": 0, "until_ms": 1}],
        "lost": [{"instance": "a", "at_ms": 5, "removed": True}], "leaving": ["a"], "drained": [],
    }  # fmt: skip
    return [plain, json.dumps(body).encode(), base64.b64encode(plain)]


def _ring(data: bytes) -> None:
    found = persistence.decode(data)
    again = persistence.decode(
        persistence.encode(
            {ring: one.version for ring, one in found.items()},
            {ring: one.instances for ring, one in found.items()},
            {ring: one.replication for ring, one in found.items() if one.replication is not None},
        )
    )
    assert again.keys() == found.keys()


def _election_seeds() -> list[bytes]:
    return [elections.encode({"team-a": {"cluster": elections.Elected("a", NOW_MS, NOW_MS, 2)}})]


def _elections(data: bytes) -> None:
    elections.encode(elections.decode(data, NOW_MS))


TARGETS = (
    Target("wal", _wal, lambda: list(_files()[:2]), _wal_mutate, (Corruption,), bytes_more=16 << 20, share=0.5),
    Target("checkpoint", _checkpoint, lambda: [_files()[2]], _checkpoint_mutate, (Corruption,), share=0.5),
    Target("ring", _ring, _ring_seeds, of_json, (Corruption,), share=0.25),
    Target("elections", _elections, _election_seeds, of_json, (Corruption,), share=0.25),
)
