"""`mimir-ray status [-data-dir=DIR]`: how a running mimir-ray is doing."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

from mimir_ray.config import loader
from mimir_ray.config.tree import ConfigError
from mimir_ray.deploy.settings import RUN_FILE, Settings


def main(arguments: list[str]) -> int:
    """Exit status: 0 all services run, 1 some do not, 3 nothing runs there."""
    try:
        settings = loader.load(Settings(), arguments).settings
    except ConfigError as error:
        print(f"mimir-ray: {error}", file=sys.stderr)
        return 2
    path: Path = settings.root / RUN_FILE
    if not path.exists():
        print(f"no mimir-ray runs on {settings.root}")
        return 3
    try:
        run = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        print(f"{path} cannot be read: {error}")
        return 3
    try:
        services = _get(f"{run['url']}/services")["services"]
        ring = _get(f"{run['url']}/ingester/ring")["shards"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"the gateway at {run['url']} (pid {run['pid']}) does not answer: {error}")
        return 3
    print(f"{run['url']}/  pid {run['pid']}  data {settings.root}")
    for one in services:
        print(f"  {one['service']:<16} {one['status']:<10} {one['detail']}".rstrip())
    print("ring of ingesters")
    for one in ring:
        share = f"{len(one['tokens'])} tokens, {one['ownership']:.1%}"
        print(f"  {one['id']:<16} {one['state']:<10} {one['zone']:<10} {share}")
    return 0 if all(one["status"] == "Running" for one in services) else 1


def _get(url: str) -> Any:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    # It is on this machine: no proxy in between, and no name in a certificate to check.
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323
    )
    with direct.open(request, timeout=10) as answer:
        return json.loads(answer.read())
