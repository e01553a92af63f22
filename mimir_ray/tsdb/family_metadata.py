"""`FamilyMetadata`: what senders said of a tenant's metric families, and when they last did.

Senders may disagree about a family: each different entry is kept. Upstream: pkg/ingester/user_metrics_metadata.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mimir_ray.model.metadata import Metadata

PER_USER = "max-metadata-per-user"
PER_METRIC = "max-metadata-per-metric"
_RESTORED = -(1 << 63)


class FamilyMetadata:
    """Not thread-safe: the head's lock guards it."""

    def __init__(self, families_max: int) -> None:
        """`families_max`: more are not remembered, whatever the tenant's limit."""
        self._families_max = families_max
        self._seen: dict[str, dict[Metadata, int]] = {}
        """Family → entry → when it was last sent, ms."""

    def __len__(self) -> int:
        """Entries, of all families."""
        return sum(len(one) for one in self._seen.values())

    def learn(
        self, entries: Sequence[Metadata], now_ms: int, families_max: int = 0, per_family_max: int = 0
    ) -> tuple[list[Metadata], list[tuple[Metadata, str]]]:
        """(new entries, refused ones with the limit that refuses them); limits of 0 allow any number."""
        new: list[Metadata] = []
        refused: list[tuple[Metadata, str]] = []
        for one in entries:
            known = self._seen.get(one.family)
            if known is None:
                if 0 < families_max <= len(self._seen):
                    refused.append((one, PER_USER))
                    continue
                if len(self._seen) >= self._families_max:
                    continue
                known = self._seen[one.family] = {}
            if one not in known:
                if 0 < per_family_max <= len(known):
                    refused.append((one, PER_METRIC))
                    continue
                new.append(one)
            known[one] = now_ms
        return new, refused

    def restore(self, entries: Iterable[Metadata]) -> None:
        """Takes over entries from a record; they count as seen when `drop` is called next."""
        for one in entries:
            self._seen.setdefault(one.family, {}).setdefault(one, _RESTORED)

    def drop(self, now_ms: int, retain_ms: int) -> int:
        """Forgets what was last sent longer ago than `retain_ms`; returns how many entries."""
        dropped = 0
        for family in list(self._seen):
            known = self._seen[family]
            for one, seen in list(known.items()):
                if seen == _RESTORED:
                    known[one] = now_ms
                elif seen < now_ms - retain_ms:
                    del known[one]
                    dropped += 1
            if not known:
                del self._seen[family]
        return dropped

    def of(self, family: str = "") -> list[Metadata]:
        """Of all families, sorted, or of one."""
        if family:
            return list(self._seen.get(family, ()))
        return [one for name in sorted(self._seen) for one in self._seen[name]]
