"""The first call of a kernel compiles it, so no example has a deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("promql", deadline=None, max_examples=60)
settings.load_profile("promql")
