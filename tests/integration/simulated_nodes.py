"""A Ray of several nodes on this machine, in a process of its own: `python -m tests.integration.simulated_nodes ZONE…`.

The first line on standard output is the address; then, for each line `NAME ZONE` on standard input, a node with
these labels is started, and a line with the ids of its processes is the answer. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mimir_ray.deploy.environment import prepare_environment

OBJECT_STORE_BYTES = 80 << 20


def tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    prepare_environment(Path(sys.argv[1]))
    # A node counts as dead after 3 s without an answer instead of 15.
    os.environ |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
    from mimir_ray.deploy.local_ray import LocalRay

    with LocalRay(OBJECT_STORE_BYTES, cpus=0) as ray:
        tell(address=ray.address)
        for line in sys.stdin:
            name, zone = line.split()
            pids = ray.add_node({"mimir-ray/zone": zone, "mimir-ray/node": name})
            tell(pids=pids)


if __name__ == "__main__":
    main()
