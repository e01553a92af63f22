"""Settings of object storage: a backend and where on it. Mimir's names (`common.storage`, `blocks_storage`)."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import setting


@dataclass(frozen=True, slots=True)
class FilesystemConfig:
    """The `filesystem` block."""

    dir: str = setting("", flag="blocks-storage.filesystem.dir", help="Empty: `blocks` in the data directory.")
