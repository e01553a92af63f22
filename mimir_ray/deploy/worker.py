"""What Ray runs as a worker where the Ray is ours: Ray's own worker without what no actor of ours needs.

Ray registers serializers for classes of starlette, pydantic and pyarrow in every process, and imports all three for
that, 25 MB. Here they are registered where one of the latter two is there already. Processes that Ray starts elsewhere
(a cluster that we joined) are as Ray makes them.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import ray
from ray.util import serialization_addons


def spare_imports() -> None:
    """To be called before this process connects to Ray."""
    all_of_them = serialization_addons.apply

    def apply(context: Any) -> None:
        if "pydantic" in sys.modules or "pyarrow" in sys.modules:
            all_of_them(context)

    serialization_addons.apply = apply


if __name__ == "__main__":
    spare_imports()
    runpy.run_path(str(Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py"), run_name="__main__")
