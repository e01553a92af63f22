"""`mimir-ray serve [-config.file=FILE] [-<any Mimir flag>=…] [--address=RAY]`."""

from __future__ import annotations

import os
import sys

from mimir_ray import __version__
from mimir_ray.config import loader, render
from mimir_ray.config.reference import help_text
from mimir_ray.config.tree import ConfigError
from mimir_ray.deploy.environment import prepare_environment
from mimir_ray.deploy.settings import Settings, without_effect


def main(arguments: list[str]) -> int:
    """Returns the exit status: 2 for a configuration that cannot be used."""
    address, rest = ray_address(arguments)
    default = Settings()
    try:
        loaded = loader.load(default, rest, os.environ)
    except ConfigError as error:
        print(f"mimir-ray: {error}", file=sys.stderr)
        return 2
    if "version" in loaded.requests:
        print(f"mimir-ray, version {__version__}")
        return 0
    if loaded.requests & {"help", "h", "help-all"}:
        print(help_text(default, "help-all" in loaded.requests))
        return 0
    if "print.config" in loaded.requests:
        print(render.config_page(loaded.settings, default))
        return 0
    for warning in (*loaded.warnings, *without_effect(loaded.settings.deploy)):
        print(f"mimir-ray: warning: {warning}", file=sys.stderr)
    if not address:
        prepare_environment(loaded.settings.root / "ray-auth-token")
    from mimir_ray.deploy.launch import serve  # noqa: PLC0415  (Ray reads the environment when it is imported)

    return serve(loaded.settings, address)


def ray_address(arguments: list[str]) -> tuple[str, list[str]]:
    """`--address=…` (Ray's own word) is no setting: it says what this process joins."""
    rest: list[str] = []
    address = ""
    given = iter(arguments)
    for one in given:
        name, equals, value = one.partition("=")
        if name in ("--address", "-address"):
            address = value if equals else next(given, "")
        else:
            rest.append(one)
    return address, rest
