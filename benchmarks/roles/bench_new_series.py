"""What rules cost a new series: `python benchmarks/roles/bench_new_series.py [series] [--profile]`.

Requests of 2,000 series each, all new, to a distributor whose ingester only hands out references: without rules, with
some, with all that `benchmarks/system/servers.py` has. CPU microseconds a series, the least of three runs.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench_write_path import Sink, all_rules
from load import series_of
from servers import ALL_RULES

from mimir_ray.config.limits import Limits
from mimir_ray.config.loader import load
from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.deploy.settings import Settings
from mimir_ray.wire.remote_write import encode_write_request
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup

BATCH = 2000
UNLIMITED = {"ingestion_rate": 1e12, "ingestion_burst_size": 10**12}
DISTINCT = (
    RelabelConfig(source_labels=("instance", "__name__", "le"), regex="(.*):(.*);(.*)", target_label="port_$2"),
    RelabelConfig(source_labels=("instance", "__name__", "le"), action="hashmod", modulus=64, target_label="shard"),
    RelabelConfig(regex="(.*)e", action="labelmap", replacement="was_$1"),
)
"""Rules for which nearly every series has a value of its own."""


def seconds(bodies: list[bytes], limits: Limits, profile: cProfile.Profile | None = None) -> float:
    """CPU of all requests, the first one left out, which loads what is needed."""
    rules = all_rules()
    setup = Setup(ha_tracker=rules["ha_tracker"], instance_limits=rules["instance_limits"])
    setup.tenant_limits = replace(limits, **UNLIMITED)
    setup.fakes = {name: Sink() for name in setup.fakes}  # type: ignore[misc]

    async def work() -> float:
        began = 0.0
        for number, body in enumerate(bodies):
            if number == 1:
                began = time.process_time()
                if profile:
                    profile.enable()
            outcome = await setup.distributor.push(TENANT, body)
            assert outcome.error is None, outcome.error
        await setup.distributor.drain()
        if profile:
            profile.disable()
        return time.process_time() - began

    return asyncio.run(work())


def main(count: int, profiled: bool = False) -> None:
    series = series_of(count + BATCH, replica="a")
    bodies = [
        encode_write_request([(labels, [(NOW_MS, 1.0)]) for labels in series[first : first + BATCH]])
        for first in range(0, len(series), BATCH)
    ]
    everything = load(Settings(), ["-config.file=all"], read=lambda _: ALL_RULES).settings.limits
    without = replace(everything, metric_relabel_configs=())
    for name, limits in (
        ("no rules", Limits()),
        ("HA and drop_labels", without),
        ("all rules", everything),
        ("rules of distinct values", replace(without, metric_relabel_configs=DISTINCT)),
        ("long values hashed", replace(everything, label_value_length_over_limit_strategy="truncate")),
    ):
        spent = min(seconds(bodies, limits) for _ in range(3))
        print(f"{name:26}{spent / count * 1e6:8.2f} µs a new series")
        if profiled:
            profile = cProfile.Profile()
            seconds(bodies, limits, profile)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:] if one.isdigit()]
    main(numbers[0] if numbers else 20_000, "--profile" in sys.argv)
