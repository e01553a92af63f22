"""`python -m tests.fuzz`: many inputs for every decoder of bytes from outside; `make fuzz` runs it.

Each target runs in a process of its own, so that a crash is a find like others: the input that was tried last stands in
a file that survives the process.

Environment: MIMIR_RAY_FUZZ_INPUTS (1,000,000 in all), MIMIR_RAY_FUZZ_SECONDS (3 h in all; what is not done by then is
left out, and said), MIMIR_RAY_FUZZ_SEED (anything; by default another one every day), MIMIR_RAY_FUZZ_TARGETS (names).
"""

from __future__ import annotations

import faulthandler
import mmap
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.target import Find, Tally, Target, fuzz
from tests.fuzz.targets import BY_NAME, TARGETS

INPUT_MAX = 1 << 17
MEMORY_MAX = 8 << 30
"""Bytes of address space of a process; an array that somebody's number made huge is then a MemoryError."""
BATCH = 250
STUCK_S = 120
"""Of a batch; a machine with much else to do may take half a minute."""


def work(name: str, count: int, seed: str, deadline: float, path: Path, results: Connection) -> None:
    """In the process of a target. Sends a tally every batch."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with path.open("r+b") as file:
        last = mmap.mmap(file.fileno(), INPUT_MAX)

    def note(data: bytes) -> None:
        last[: 4 + len(data)] = struct.pack("<I", len(data)) + data

    done = 0
    while done < count and time.monotonic() < deadline:
        size = min(BATCH, count - done)
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        results.send(fuzz(BY_NAME[name], size, f"{seed} {done}", note))
        done += size
    results.send(None)


def run(target: Target, count: int, seed: str, deadline: float, folder: Path) -> Tally:
    """One target; shows how far it is."""
    path = folder / target.name
    path.write_bytes(bytes(INPUT_MAX))
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(target.name, count, seed, deadline, path, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    total = Tally()
    finished = False
    try:
        while (part := receiver.recv()) is not None:
            total.inputs += part.inputs
            total.taken += part.taken
            known = {find.what[:60] for find in total.finds}
            total.finds += [find for find in part.finds if find.what[:60] not in known]
            rate = total.inputs / (time.monotonic() - began)
            _show(f"{target.name:16} {total.inputs:>9,} of {count:,}, {rate:,.0f}/s, {len(total.finds)} finds", "\r")
        finished = True
    except EOFError:
        pass  # the process has ended before it was done
    process.join()
    if not finished:
        raw = path.read_bytes()
        data = raw[4 : 4 + struct.unpack("<I", raw[:4])[0]]
        total.finds.append(Find(target.name, data, f"ended the process (exit status {process.exitcode}), or was stuck"))
    share = total.taken / total.inputs if total.inputs else 0.0
    _show(f"{target.name:16} {total.inputs:>9,} inputs, {share:.0%} taken, {len(total.finds)} finds{' ' * 20}", "\n")
    return total


def _show(text: str, end: str) -> None:
    if end == "\n" or sys.stderr.isatty():
        sys.stderr.write(text + end)
        sys.stderr.flush()


def main() -> int:
    count = int(os.environ.get("MIMIR_RAY_FUZZ_INPUTS", "1000000"))
    seconds = float(os.environ.get("MIMIR_RAY_FUZZ_SECONDS", str(3 * 3600)))
    seed = os.environ.get("MIMIR_RAY_FUZZ_SEED", time.strftime("%Y-%m-%d", time.gmtime()))
    names = os.environ.get("MIMIR_RAY_FUZZ_TARGETS", "").replace(",", " ").split()
    chosen = [target for target in TARGETS if not names or target.name in names]
    shares = sum(target.share for target in chosen)
    _show(f"seed {seed!r}", "\n")
    finds: list[Find] = []
    inputs = 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        for at, target in enumerate(chosen):
            left = sum(one.share for one in chosen[at:])
            deadline = time.monotonic() + max(end - time.monotonic(), 1.0) * target.share / left
            tally = run(target, -(-int(count * target.share) // int(shares)), seed, deadline, Path(folder))
            inputs += tally.inputs
            finds += tally.finds
    for find in finds:
        sys.stdout.write(f"{find}\n")
    sys.stdout.write(f"{inputs:,} inputs, {len(finds)} finds\n")
    if inputs < count:
        sys.stdout.write(f"the time was over before all {count:,} inputs were tried\n")
    return 1 if finds else 0
