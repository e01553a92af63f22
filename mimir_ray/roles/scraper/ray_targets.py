"""What there is to scrape of the Ray cluster that this process is part of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import structlog

from mimir_ray.roles.scraper.scraper import Target

log = structlog.get_logger(__name__)


def targets_of_nodes(nodes: list[dict[str, Any]]) -> list[Target]:
    """Each live node's metrics agent, from `ray.nodes()`; nodes without one have port 0 or -1."""
    return [
        Target(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}", "/metrics", (("job", "ray"),))
        for node in nodes
        if node.get("Alive") and node.get("MetricsExportPort", 0) > 0
    ]


def targets_of_file(path: Path) -> list[Target]:
    """Of a Prometheus service-discovery file: `[{"labels": {…}, "targets": ["host:port", …]}]`.

    A file that is not there has no targets; one that cannot be read is logged and has none either.
    """
    try:
        groups = json.loads(path.read_bytes())
        return [
            Target(
                address,
                "/metrics",
                tuple(sorted((str(name), str(value)) for name, value in group.get("labels", {}).items())),
            )
            for group in groups
            for address in group["targets"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("service-discovery file cannot be used", path=str(path), error=str(error))
        return []
