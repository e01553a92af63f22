"""A kernel's first call compiles it, so examples have no deadline here."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")
