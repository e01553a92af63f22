"""`mimir-ray scale --address=RAY [-config.file=FILE] [-deploy.ingesters=N] [--roll]`: changes a running deployment."""

from __future__ import annotations

import os
import sys

from mimir_ray.cli.serve import ray_address
from mimir_ray.config import loader
from mimir_ray.config.tree import ConfigError
from mimir_ray.deploy.environment import prepare_environment
from mimir_ray.deploy.settings import Settings
from mimir_ray.errors import MimirRayError


def main(arguments: list[str]) -> int:
    """Brings the number of ingesters to what the settings say, or (`--roll`) starts each again. Exit status: 2 for
    arguments that cannot be used, 1 where it was not done."""
    address, rest = ray_address(arguments)
    roll = "--roll" in rest
    try:
        loaded = loader.load(Settings(), [one for one in rest if one != "--roll"], os.environ)
    except ConfigError as error:
        print(f"mimir-ray: {error}", file=sys.stderr)
        return 2
    if not address:
        print("mimir-ray: expected --address=HOST:PORT of the Ray that mimir-ray runs on, or auto", file=sys.stderr)
        return 2
    settings = loaded.settings
    token = settings.root / "ray-auth-token"
    if token.exists():
        prepare_environment(token)
    from mimir_ray.deploy.rescale import rescale  # noqa: PLC0415  (Ray reads the environment when it is imported)

    try:
        rescale(settings, address, roll, lambda text: print(f"  {text}", flush=True))
    except MimirRayError as error:
        print(f"mimir-ray: {error}", file=sys.stderr)
        return 1
    print("done")
    return 0
