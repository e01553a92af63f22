"""`LabelRules`: what becomes of the labels of a series before it is stored, and whether it may be.

In Mimir's order: the replica label of an HA pair goes, relabelling, `drop_labels`, labels without a value go, sorting,
over-long values; then validation (validation.py). All of it happens once a series and a distributor: the series cache
knows the outcome afterwards, so everything that decides is part of `decisive` or of the `Form`.

Upstream: pkg/distributor/distributor.go prePushHaDedupeMiddleware, prePushRelabelMiddleware,
prePushSortAndFilterMiddleware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.config.limits import Limits
from mimir_ray.model.label_rows import LabelRows
from mimir_ray.model.relabel import Relabelling, relabelling
from mimir_ray.model.relabel_columns import labels_added, relabel_rows
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.distributor.canonical import sort_sections, split_sections
from mimir_ray.roles.distributor.section_rows import read_rows, write_sections
from mimir_ray.roles.distributor.validation import judge_sections, validate_labels
from mimir_ray.wire.protobuf import RawLabel, encode_labels

META_TENANT = "__meta_tenant_id"
"""There while rules are applied. Upstream: metaLabelTenantID."""
META = META_TENANT.encode()

COLUMNS_MIN = 10
"""So many series are rewritten together; fewer cost less one by one."""


@dataclass(frozen=True, slots=True)
class Form:
    """What of one request, beside the limits of its tenant, decides about labels.

    `one_replica`: it is from the elected replica of an HA pair, whose label is taken off. `any_names`, `any_count`:
    names and number of labels are not judged (X-Mimir-SkipLabelNameValidation, X-Mimir-SkipLabelCountValidation).
    """

    one_replica: bool = False
    any_names: bool = False
    any_count: bool = False

    @property
    def number(self) -> int:
        """0 for the usual one, below `FORMS`."""
        return self.one_replica | self.any_names << 1 | self.any_count << 2


FORMS = 8
USUAL = Form()


def decisive(limits: Limits) -> tuple[Any, ...]:
    """All that decides about labels; series that were accepted under other rules have to be judged again."""
    return (
        limits.name_validation_scheme,
        limits.max_label_names_per_series,
        limits.max_label_names_per_info_series,
        limits.max_label_name_length,
        limits.max_label_value_length,
        limits.label_value_length_over_limit_strategy,
        limits.drop_labels,
        limits.metric_relabel_configs if limits.metric_relabeling_enabled else (),
        limits.ha_replica_label,
    )


class LabelRules:
    """Of one tenant, for requests of one form."""

    def __init__(self, tenant: TenantId, limits: Limits, form: Form = USUAL) -> None:
        self.limits = limits
        self.form = form
        self._tenant = tenant
        self._replica = limits.ha_replica_label.encode() if form.one_replica else b""
        self._dropped = tuple(name.encode() for name in limits.drop_labels)
        self._relabelling: Relabelling | None = None
        if limits.metric_relabel_configs and limits.metric_relabeling_enabled:
            utf8 = limits.name_validation_scheme == "utf8"
            self._relabelling = relabelling(limits.metric_relabel_configs, utf8)
        self._added = 1 + labels_added(self._relabelling) if self._relabelling is not None else 0
        self.only_removes = self._relabelling is None and limits.label_value_length_over_limit_strategy == "error"
        """Whether labels are only ever sorted and taken off: `sort` does all there is to do."""
        self._removed = self._dropped + ((self._replica,) if self._replica else ())
        self.changes_sound_labels = bool(self._removed) or self._relabelling is not None
        """Whether a series in canonical form and within all limits may come out of it as another one."""

    def canonical(self, raw: Sequence[RawLabel]) -> list[RawLabel] | None:
        """Labels as they are stored, sorted; none at all, or None: the series is dropped without a word."""
        labels: Sequence[RawLabel] = raw
        if self._replica:
            labels = [label for label in labels if label[0] != self._replica]
        if self._relabelling is not None:
            relabelled = self._relabel(labels)
            if relabelled is None:
                return None
            labels = relabelled
        kept = sorted([one for one in labels if one[1] and one[0] not in self._dropped], key=itemgetter(0))
        strategy, longest = (
            self.limits.label_value_length_over_limit_strategy,
            self.limits.max_label_value_length,
        )
        if strategy == "error":
            return kept
        return [(name, value if len(value) <= longest else _hashed(value, longest, strategy)) for name, value in kept]

    def rewrite(
        self, data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(bytes, int64[M] starts, int64[M] ends): `canonical` for many sections; empty ones are dropped.

        Raises `MalformedProtobuf`.
        """
        if len(starts) < COLUMNS_MIN:
            return self._rewrite_each(data, starts, ends)
        rows, odd = read_rows(
            np.frombuffer(data, np.uint8), starts, ends, self._added, merged=self._relabelling is not None
        )
        self._change(rows)
        sections, offsets = write_sections(rows, (META, *self._dropped) if self._relabelling else self._dropped)
        if not odd.any():
            return sections, offsets[:-1], offsets[1:]
        others, other_starts, other_ends = self._rewrite_each(data, starts[odd], ends[odd])
        new_starts, new_ends = offsets[:-1].copy(), offsets[1:].copy()
        new_starts[odd], new_ends[odd] = other_starts + len(sections), other_ends + len(sections)
        return np.concatenate((sections, others)), new_starts, new_ends

    def _rewrite_each(
        self, data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        pieces = [encode_labels(self.canonical(raw) or ()) for raw in split_sections(data, starts, ends)]
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(one) for one in pieces], out=offsets[1:])
        return np.frombuffer(b"".join(pieces), np.uint8), offsets[:-1], offsets[1:]

    def _change(self, rows: LabelRows) -> None:
        """What `canonical` does but for taking off META and `drop_labels`, and for sorting."""
        if self._replica:
            rows.take_off_named((self._replica,))
        if self._relabelling is not None:
            rows.write_all(META, self._tenant.encode())
            relabel_rows(self._relabelling, rows)
        strategy, longest = self.limits.label_value_length_over_limit_strategy, self.limits.max_label_value_length
        if strategy == "error":
            return
        long = np.flatnonzero(rows.ends - rows.starts > longest)
        spans = zip(rows.starts[long].tolist(), rows.ends[long].tolist(), strict=True)
        values = [_hashed(rows.text.data[start:end].tobytes(), longest, strategy) for start, end in spans]
        places = rows.text.append(values)
        rows.starts[long], rows.ends[long] = places[:-1], places[1:]

    def sort(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """`canonical` for many label sections, where it `only_removes`; see canonical.sort_sections."""
        assert self.only_removes
        return sort_sections(data, starts, ends, self._removed)

    def judge(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], token_seed: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
        """(bool[M], uint32[M]): which sections are canonical and valid beyond doubt, and their tokens."""
        return judge_sections(data, starts, ends, token_seed, self.limits, self.form.any_count)

    def validate(self, labels: Sequence[RawLabel]) -> None:
        """Raises the first thing that is wrong with canonical labels."""
        validate_labels(labels, self.limits, self.form.any_names, self.form.any_count)

    def _relabel(self, raw: Sequence[RawLabel]) -> list[RawLabel] | None:
        assert self._relabelling is not None
        try:
            labels = {name.decode(): value.decode() for name, value in raw if value}
        except UnicodeDecodeError:
            return list(raw)  # not text, which validation says
        labels[META_TENANT] = self._tenant
        if not self._relabelling.apply(labels):
            return None
        labels.pop(META_TENANT, None)
        return [(name.encode(), value.encode()) for name, value in labels.items()]


def _hashed(value: bytes, longest: int, strategy: str) -> bytes:
    # Upstream: pkg/distributor/validate.go hashLabelValueInto
    mark = b"(hash:" + hashlib.blake2b(value, digest_size=32).hexdigest().encode() + b")"
    if strategy == "drop":
        return mark
    return value[: max(0, longest - len(mark))].decode("utf-8", "ignore").encode() + mark
