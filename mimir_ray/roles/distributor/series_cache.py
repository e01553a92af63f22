"""`SeriesCache`: which series of one tenant this distributor has seen, and what ingesters call them.

A series is known by the keyed 128-bit hash of its label section as it was sent; the same labels in another
order or encoding are another entry with the same token. A false match needs a collision of the whole hash
under a key that nobody outside the process knows (2^-64 for 2^32 series). Everything is in columns indexed
by a dense id; a table of slots with linear probing leads from hash to id. Senders repeat their series in the same
order, so the id after the last one found is tried before the table.

Memory per series: 16 B hash, 4 B token, 1 B age, 2 B form, up to 8 B slots, and 6 B per replica.

Series that relabelling drops are known too, so that dropping them costs nothing the next time.

References are good for one incarnation of one ingester's head. They are kept per replica beside the
ingester's number, so that a change of the ring only costs those whose owners changed. Not thread-safe: the
owner's event loop is the only caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, U64, OutI32, OutI64, OutU8, OutU64, kernel

UNKNOWN = -1
"""No reference."""
NOBODY = -1
"""No ingester. Equals cluster.ring.lookup.NOBODY."""

_SLOTS_MIN = 1 << 10


class SeriesCache:
    """Series of one tenant. Ids are good until `generation` changes."""

    def __init__(self, series_max: int) -> None:
        """`series_max`: when more are known, those not seen lately are forgotten."""
        assert series_max > 0
        self._series_max = series_max
        self.generation = 0
        self.count = 0
        self._epoch = 1
        self._slots = np.full(_SLOTS_MIN, -1, np.int32)
        room = _SLOTS_MIN // 2
        self._low = np.empty(room, np.uint64)
        self._high = np.empty(room, np.uint64)
        self.tokens = np.empty(room, np.uint32)
        self.canonical = np.empty(room, np.bool_)
        self.dropped = np.empty(room, np.bool_)
        self.some_dropped = False
        self._seen = np.empty(room, np.uint8)
        self.owners = np.empty((room, 0), np.int16)
        self.references = np.empty((room, 0), np.int32)
        self.ring_version = -2
        self.instances: tuple[str, ...] = ()
        self._incarnations: dict[str, int] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Of all columns, used or not."""
        return sum(column.nbytes for column in (self._slots, *self._columns()))

    def find(self, hash_low: NDArray[np.uint64], hash_high: NDArray[np.uint64]) -> tuple[NDArray[np.int32], int]:
        """int32[S]: the ids, -1 for series not seen before; and how many those are."""
        ids = np.empty(len(hash_low), np.int32)
        misses = np.zeros(1, np.int64)
        _find(
            self._slots,
            self._low[: self.count],
            self._high[: self.count],
            hash_low,
            hash_high,
            self._seen,
            self._epoch,
            ids,
            misses,
        )
        return ids, int(misses[0])

    def add(
        self,
        hash_low: NDArray[np.uint64],
        hash_high: NDArray[np.uint64],
        tokens: NDArray[np.uint32],
        canonical: NDArray[np.bool_],
        dropped: NDArray[np.bool_],
        owners: NDArray[np.int16],
    ) -> NDArray[np.int32]:
        """Adds M series that `find` did not find (the same one may be here twice); returns their ids, int32[M].

        `owners`: int16[M, RF] under the ring version that was last given to `use_ring`. Ids stay good: see
        `make_room`.
        """
        self._reserve(self.count + len(hash_low))
        ids = np.empty(len(hash_low), np.int32)
        count = np.array([self.count], np.int64)
        _add(self._slots, self._low, self._high, hash_low, hash_high, ids, count)
        self.count = int(count[0])
        self.tokens[ids] = tokens
        self.canonical[ids] = canonical
        self.dropped[ids] = dropped
        self.some_dropped = self.some_dropped or bool(dropped.any())
        self._seen[ids] = self._epoch
        self.owners[ids] = owners
        self.references[ids] = UNKNOWN
        return ids

    def make_room(self, new: int) -> bool:
        """To be called before `new` series are added. True: series were forgotten, all ids are of the past.

        Over `series_max`, keeps what was seen lately if that is at most half of what is allowed, else nothing.
        """
        if self.count == 0 or self.count + new <= self._series_max:
            return False
        seen = self._seen[: self.count]
        for keep in (seen >= self._epoch - 1, seen == self._epoch):
            if int(keep.sum()) * 2 <= self._series_max:
                self._keep(keep)
                return True
        self._keep(np.zeros(self.count, np.bool_))
        return True

    def use_ring(self, version: int, instances: tuple[str, ...], owners: NDArray[np.int16]) -> None:
        """Takes over a new ring: `owners` int16[count, RF] of all `tokens[:count]`, indices into `instances`.

        References stay where an ingester still owns the series.
        """
        position = {name: at for at, name in enumerate(instances)}
        # The last entry answers for NOBODY.
        moved = np.array([position.get(name, -2) for name in self.instances] + [-2], np.int16)
        before = moved[self.owners[: self.count]]
        kept = np.full((self.count, owners.shape[1]), UNKNOWN, np.int32)
        for new in range(owners.shape[1]):
            for old in range(before.shape[1]):
                same = before[:, old] == owners[:, new]
                kept[same, new] = self.references[: self.count, old][same]
        room = len(self._low)
        self.owners = np.empty((room, owners.shape[1]), np.int16)
        self.references = np.empty((room, owners.shape[1]), np.int32)
        self.owners[: self.count] = owners
        self.references[: self.count] = kept
        self.ring_version = version
        self.instances = instances
        self._incarnations = {name: one for name, one in self._incarnations.items() if name in position}

    def incarnation(self, ingester: str) -> int:
        """Of the head that the references of this ingester are good for; 0 if none is known."""
        return self._incarnations.get(ingester, 0)

    def learn(
        self,
        generation: int,
        ring_version: int,
        ingester: int,
        incarnation: int,
        ids: NDArray[np.int32],
        references: NDArray[np.int32],
    ) -> None:
        """Notes what an ingester calls some series: `references[i]` (or -1) for `ids[i]`.

        Does nothing if the ids or the ingester's number (its index in the ring's instances) are of the past.
        """
        if generation != self.generation or ring_version != self.ring_version:
            return
        self.expect(ingester, incarnation)
        for replica in range(self.owners.shape[1]):
            mine = (self.owners[ids, replica] == ingester) & (references >= 0)
            self.references[ids[mine], replica] = references[mine]

    def forget_references(self, generation: int, ring_version: int, ingester: int, ids: NDArray[np.int32]) -> None:
        """These series no longer exist under their references at this ingester."""
        if generation != self.generation or ring_version != self.ring_version:
            return
        for replica in range(self.owners.shape[1]):
            self.references[ids[self.owners[ids, replica] == ingester], replica] = UNKNOWN

    def expect(self, ingester: int, incarnation: int) -> None:
        """An ingester's head has this incarnation: references to another one are forgotten."""
        name = self.instances[ingester]
        if self._incarnations.get(name) == incarnation:
            return
        self._incarnations[name] = incarnation
        known = self.references[: self.count]
        known[self.owners[: self.count] == ingester] = UNKNOWN

    def age(self) -> None:
        """Starts a new epoch; series of the last two are kept when room is needed. Call it every few minutes.

        Forgets the older ones at once if that frees at least half of the columns.
        """
        idle = int((self._seen[: self.count] < self._epoch - 1).sum()) if self._epoch > 1 else 0
        if idle * 2 > len(self._low):
            self._keep(self._seen[: self.count] >= self._epoch - 1)
        if self._epoch == 255:
            self._seen[: self.count] = np.maximum(self._seen[: self.count].astype(np.int16) - 253, 0)
            self._epoch = 2
        self._epoch += 1

    def _keep(self, rows: NDArray[np.bool_]) -> None:
        kept = int(rows.sum())
        for column in self._columns():
            column[:kept] = column[: self.count][rows]
        self.count = kept
        self.some_dropped = bool(self.dropped[:kept].any())
        self.generation += 1
        self._resize(max(_SLOTS_MIN // 2, 1 << kept.bit_length()))

    def _reserve(self, count: int) -> None:
        if count > len(self._low):
            # Half more at a time, so that columns waste at most a third.
            self._resize(max(count, len(self._low) * 3 // 2))

    def _resize(self, room: int) -> None:
        def resized(column: NDArray) -> NDArray:  # type: ignore[type-arg]
            bigger = np.empty((room, *column.shape[1:]), column.dtype)
            bigger[: self.count] = column[: self.count]
            return bigger

        (
            self._low,
            self._high,
            self.tokens,
            self.canonical,
            self.dropped,
            self._seen,
            self.owners,
            self.references,
        ) = (resized(column) for column in self._columns())
        # At most three quarters full.
        self._slots = np.full(max(_SLOTS_MIN, 1 << (room * 4 // 3).bit_length()), -1, np.int32)
        _fill_slots(self._slots, self._low[: self.count])

    def _columns(self) -> Sequence[NDArray]:  # type: ignore[type-arg]
        return (
            self._low,
            self._high,
            self.tokens,
            self.canonical,
            self.dropped,
            self._seen,
            self.owners,
            self.references,
        )


@kernel
def _find(
    slots: I32,
    low: U64,
    high: U64,
    wanted_low: U64,
    wanted_high: U64,
    seen: OutU8,
    epoch: int,
    ids: OutI32,
    misses: OutI64,
) -> None:
    """ids[i]: the place of (wanted_low[i], wanted_high[i]) in (low, high), or -1.

    Args:
        slots: int32, a power of two long, places or -1; at least one is -1.
        seen: uint8; `epoch` is written for what is found.
        misses: one number.
    """
    mask = np.uint64(len(slots) - 1)
    count = np.int64(len(low))
    following = np.int64(0)
    missed = np.int64(0)
    for row in range(len(wanted_low)):
        key = wanted_low[row]
        found = np.int64(-1)
        if following < count and low[following] == key and high[following] == wanted_high[row]:
            found = following
        else:
            slot = key & mask
            while True:
                place = np.int64(slots[slot])
                if place < 0:
                    break
                if low[place] == key and high[place] == wanted_high[row]:
                    found = place
                    break
                slot = (slot + np.uint64(1)) & mask
        ids[row] = found
        if found >= 0:
            seen[found] = np.uint8(epoch)
            following = found + 1
        else:
            missed += 1
    misses[0] = missed


@kernel
def _add(slots: OutI32, low: OutU64, high: OutU64, new_low: U64, new_high: U64, ids: OutI32, count: OutI64) -> None:
    """Appends pairs that are not there yet to (low, high), which have room; ids[i]: where pair i is.

    `count[0]`: how many there are, before and after.
    """
    mask = np.uint64(len(slots) - 1)
    used = count[0]
    for row in range(len(new_low)):
        slot = new_low[row] & mask
        place = np.int64(slots[slot])
        while place >= 0 and not (low[place] == new_low[row] and high[place] == new_high[row]):
            slot = (slot + np.uint64(1)) & mask
            place = np.int64(slots[slot])
        if place < 0:
            place = used
            slots[slot] = np.int32(place)
            low[place] = new_low[row]
            high[place] = new_high[row]
            used += 1
        ids[row] = place
    count[0] = used


@kernel
def _fill_slots(slots: OutI32, low: U64) -> None:
    """Puts every place of `low` into empty slots."""
    mask = np.uint64(len(slots) - 1)
    for place in range(len(low)):
        slot = low[place] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = np.int32(place)
