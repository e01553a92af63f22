"""Whether an ingester is the one owner of all series of a tenant that it has: of its head, and of blocks.

With a replication factor of 1, an ingester whose series all belong to it by the ring has every sample of
them, provided that all ingesters see the same ring: a series that is in two of them belongs to one, so the
other says no. Only then may a query be evaluated ingester by ingester.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.encoding.hashing import fnv1_32_of
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.index.tokens import series_tokens


class Ownership:
    """Of one tenant. Remembers what it checked: only new series, new blocks, or a new ring cost anything."""

    def __init__(self, tenant: str) -> None:
        self._seed = fnv1_32_of(tenant.encode())
        self._tokens = np.zeros(0, np.uint32)
        self._incarnation = 0
        self._checked = (-2, 0)
        self._foreign = np.zeros(0, np.int32)
        self._blocks: weakref.WeakKeyDictionary[Block, tuple[int, bool]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def owns_all(self, head: Head, blocks: Callable[[], Sequence[Block]], view: RingView, instance: InstanceId) -> bool:
        """Whether all series of `head` and of `blocks` belong to `instance` in `view`.

        `blocks` is asked after the head: a series that left it is in them.
        """
        return self._owns_head(head, view, instance) and all(
            self._owns_block(block, view, instance) for block in blocks()
        )

    def foreign(self, head: Head, view: RingView, instance: InstanceId) -> int:
        """How many live series of `head` have no replica at `instance` in `view`."""
        with self._lock:
            with head.exclusive():
                self._learn_tokens(head)
            at = view.index.get(instance, -2)
            others = np.flatnonzero(~(view.owners(self._tokens) == at).any(axis=1)).astype(np.int32)
            return head.live_among(others, self._incarnation)

    def _owns_block(self, block: Block, view: RingView, instance: InstanceId) -> bool:
        with self._lock:
            version, ours = self._blocks.get(block, (-2, False))
        if version != view.version:
            tokens = series_tokens(block.series().index, 0, self._seed)
            ours = bool((view.owners(tokens)[:, 0] == view.index.get(instance, -2)).all())
            with self._lock:
                self._blocks[block] = view.version, ours
        return ours

    def _owns_head(self, head: Head, view: RingView, instance: InstanceId) -> bool:
        with self._lock:
            with head.exclusive():
                self._learn_tokens(head)
            version, known = self._checked
            if version != view.version:
                known, self._foreign = 0, np.zeros(0, np.int32)
            if known < len(self._tokens):
                mine = view.index.get(instance, -2)
                foreign = known + np.flatnonzero(view.owners(self._tokens[known:])[:, 0] != mine)
                self._foreign = np.concatenate((self._foreign, foreign.astype(np.int32)))
            self._checked = (view.version, len(self._tokens))
            return not len(self._foreign) or head.are_dropped(self._foreign, self._incarnation)

    def _learn_tokens(self, head: Head) -> None:
        if head.incarnation != self._incarnation:
            self._tokens, self._incarnation = np.zeros(0, np.uint32), head.incarnation
            self._checked = (-2, 0)
        fresh = head.series_tokens(len(self._tokens), self._seed)
        if len(fresh):
            self._tokens = np.concatenate((self._tokens, fresh))
