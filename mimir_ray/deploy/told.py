"""What the processes that start a deployment tell `serve`: a JSON object a line on standard output.

`{"step": ...}`, `{"say": ...}`, `{"error": ...}` or, last, `{"ready": {"host": ..., "port": ...}}`; of who stops the
actors, last, `{"stopped": its process id}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def tell(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()
