"""`mimir-ray serve [-config.file=FILE] [-<any Mimir flag>=…] [--address=RAY]`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from mimir_ray.deploy.preparing import Preparing

QUESTIONS = ("version", "help", "h", "help-all", "print.config")
"""Flags that are answered, and nothing is run."""


def main(arguments: list[str]) -> int:
    """Returns the exit status: 2 for a configuration that cannot be used."""
    asked = any(one.lstrip("-").partition("=")[0] in QUESTIONS for one in arguments)
    # It takes longest, so it comes before everything else, the imports of settings included.
    with ExitStack() as stack:
        return _serve(arguments, stack, None if asked else stack.enter_context(Preparing()))


def _serve(arguments: list[str], stack: ExitStack, preparing: Preparing | None) -> int:
    from mimir_ray import __version__  # noqa: PLC0415  (see above, also of the following)
    from mimir_ray.config import loader, render  # noqa: PLC0415
    from mimir_ray.config.reference import help_text  # noqa: PLC0415
    from mimir_ray.config.tree import ConfigError  # noqa: PLC0415
    from mimir_ray.deploy.environment import prepare_environment  # noqa: PLC0415
    from mimir_ray.deploy.settings import Settings, without_effect  # noqa: PLC0415

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
    for warning in (*loaded.warnings, *without_effect(loaded.settings)):
        print(f"mimir-ray: warning: {warning}", file=sys.stderr)
    if not address:
        prepare_environment(loaded.settings.root / "ray-auth-token")
    from mimir_ray.deploy.launch import serve  # noqa: PLC0415  (Ray reads the environment when it is imported)

    return serve(loaded.settings, preparing or stack.enter_context(Preparing()), address)


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
