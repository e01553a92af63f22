"""The first call of a kernel compiles it, so no example has a deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kernels", deadline=None, max_examples=50)
settings.load_profile("kernels")
