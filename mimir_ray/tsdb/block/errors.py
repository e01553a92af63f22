"""What may be wrong with a block on disk."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.errors import ClientError, Corruption


@dataclass(eq=False)
class DamagedBlock(Corruption):
    """A file of a block is not what its format promises."""

    path: str
    offset: int
    reason: str

    def describe(self) -> str:
        return f"{self.path} is damaged at byte {self.offset}: {self.reason}"


ENCODINGS = {
    1: "XOR",
    2: "histogram",
    3: "float histogram",
    4: "XOR2",
    5: "histogram with start times",
    6: "float histogram with start times",
}


@dataclass(eq=False)
class UnsupportedChunks(ClientError):
    """The chunks are whole, but of an encoding that is carried as bytes and not decoded."""

    path: str
    encoding: int

    def describe(self) -> str:
        return (
            f"{self.path} has chunks of encoding {self.encoding} ({ENCODINGS.get(self.encoding, 'unknown')}), "
            "whose samples cannot be read"
        )
