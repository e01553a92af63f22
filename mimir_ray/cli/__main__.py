"""`mimir-ray COMMAND …`: the entry point."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": "run mimir-ray in the foreground, with a local Ray of its own or (--address) in a running one",
    "scale": "change the number of ingesters of a running mimir-ray, or start them again one by one (--roll)",
    "status": "show how the mimir-ray of a data directory is doing",
    "query": "ask a PromQL query, or how it would be run (--explain)",
    "blocks": "list, verify, download, mark and upload blocks",
    "promqltest": "run PromQL test scripts against the engine",
    "rules": "test and check files of rules, as promtool does",
    "kernels": "compile all kernels into the cache",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-version", "--version"):
        given = ["serve", "-version"]
    if not given or given[0] not in COMMANDS:
        wanted = given[0] if given else "-h"
        out = sys.stdout if wanted in ("-h", "-help", "--help", "help") else sys.stderr
        if out is sys.stderr:
            print(f"mimir-ray: unknown command {wanted!r}\n", file=out)
        print("usage: mimir-ray COMMAND [ARGUMENT ...]\n", file=out)
        for name, text in COMMANDS.items():
            print(f"  {name:<12} {text}", file=out)
        print("\n`mimir-ray serve -help` lists the settings.", file=out)
        return 0 if out is sys.stdout else 2
    try:
        # Only the command that runs is imported: the rest would cost a second.
        return int(importlib.import_module(f"mimir_ray.cli.{given[0]}").main(given[1:]))
    except KeyboardInterrupt:
        print(f"mimir-ray {given[0]}: interrupted; run it again to go on", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has seen enough. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
