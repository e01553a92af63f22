"""Which limits a tenant has, now: the defaults, or what the runtime configuration says instead.

The runtime configuration is a YAML file (or several, merged left to right) that is read again every few
seconds. `parse` is pure; `RuntimeConfig` keeps what was read last and swaps it as a whole, so a request
that holds `Overrides` sees one state. A file that cannot be used later changes nothing; at the start it
is an error. Upstream: Mimir's runtime configuration page; pkg/mimir/runtime_config.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from mimir_ray.config import render, tree
from mimir_ray.config.instance_limits import DistributorInstanceLimits, IngesterInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.loader import merge, parse_yaml, read_config, read_text
from mimir_ray.config.metrics import RuntimeConfigMetrics
from mimir_ray.config.setting import setting
from mimir_ray.config.tree import ConfigError, Problem
from mimir_ray.config.units import Duration, duration

log = structlog.get_logger(__name__)

_WITHOUT_EFFECT = frozenset({"multi_kv_config", "ingester_stream_chunks_when_using_blocks"})


@dataclass(frozen=True, slots=True)
class RuntimeConfigSettings:
    """The `runtime_config` block."""

    period: Duration = setting(
        duration("10s"),
        flag="runtime-config.reload-period",
        category="advanced",
        minimum=1,
        help="How often the files are looked at.",
    )
    file: tuple[str, ...] = setting(
        (),
        flag="runtime-config.file",
        help="YAML files with limits of tenants that are read again while running; later ones add to earlier ones.",
    )


@dataclass(frozen=True, slots=True)
class RuntimeDefaults:
    """What a runtime configuration starts from: the values of the main configuration."""

    limits: Limits = field(default_factory=Limits)
    distributor: DistributorInstanceLimits = field(default_factory=DistributorInstanceLimits)
    ingester: IngesterInstanceLimits = field(default_factory=IngesterInstanceLimits)


@dataclass(frozen=True, slots=True)
class Overrides:
    """One state of the runtime configuration. Immutable and picklable."""

    defaults: RuntimeDefaults = field(default_factory=RuntimeDefaults)
    tenants: Mapping[str, Limits] = field(default_factory=dict)
    distributor: DistributorInstanceLimits = field(default_factory=DistributorInstanceLimits)
    ingester: IngesterInstanceLimits = field(default_factory=IngesterInstanceLimits)

    @classmethod
    def of_defaults(cls, defaults: RuntimeDefaults) -> Overrides:
        return cls(defaults, {}, defaults.distributor, defaults.ingester)

    def limits(self, tenant: str) -> Limits:
        """The limits in force for a tenant; one dictionary look-up."""
        return self.tenants.get(tenant, self.defaults.limits)

    def page(self, mode: str = "") -> str:
        """The body of `/runtime_config`: tenants with all their limits, or with `diff` what differs."""
        whole = mode != "diff"
        shown: dict[str, Any] = {}
        if self.tenants or whole:
            shown["overrides"] = {
                tenant: render.tree(limits) if whole else render.difference(limits, self.defaults.limits)
                for tenant, limits in self.tenants.items()
            }
        for name, ours, theirs in (
            ("distributor_limits", self.distributor, self.defaults.distributor),
            ("ingester_limits", self.ingester, self.defaults.ingester),
        ):
            if whole or ours != theirs:
                shown[name] = render.tree(ours) if whole else render.difference(ours, theirs)
        return render.dump(shown)


def parse(documents: Iterable[Any], defaults: RuntimeDefaults) -> tuple[Overrides, list[str]]:
    """Runtime configuration from YAML documents, left to right; every tenant starts from the defaults.

    Returns it with warnings about keys that have no effect. Raises ConfigError with all problems.
    """
    merged: Any = {}
    for document in documents:
        if not isinstance(document, Mapping):
            raise ConfigError((("", f"expected a map, got {document!r}"),))
        merged = merge(merged, document)
    problems: list[Problem] = []
    warnings: list[str] = []
    tenants: dict[str, Limits] = {}
    overrides = merged.pop("overrides", None) or {}
    if not isinstance(overrides, Mapping):
        problems.append(("overrides", "expected a map of tenant to limits"))
        overrides = {}
    for tenant, values in overrides.items():
        tenants[str(tenant)], bad = tree.build(defaults.limits, values, f"overrides.{tenant}")
        problems += bad
    distributor, bad = tree.build(defaults.distributor, merged.pop("distributor_limits", None), "distributor_limits")
    problems += bad
    ingester, bad = tree.build(defaults.ingester, merged.pop("ingester_limits", None), "ingester_limits")
    problems += bad
    for key in merged:
        if key in _WITHOUT_EFFECT:
            warnings.append(f"runtime setting {key} has no effect")
        else:
            known = ["overrides", "distributor_limits", "ingester_limits"]
            problems.append((str(key), f"unknown setting{tree.suggestion(str(key), known)}"))
    if problems:
        raise ConfigError(tuple(problems))
    return Overrides(defaults, tenants, distributor, ingester), warnings


class RuntimeConfig:
    """The runtime configuration of one process. Whoever owns a timer calls `reload`."""

    def __init__(
        self,
        settings: RuntimeConfigSettings,
        defaults: RuntimeDefaults,
        registry: CollectorRegistry,
        read: Callable[[str], str] = read_text,
    ) -> None:
        """Reads the files once; raises ConfigError if they cannot be used."""
        self._settings = settings
        self._defaults = defaults
        self._read = read
        self._metrics = RuntimeConfigMetrics(registry) if settings.file else None
        self._sha256 = ""
        self._next_ms: int | None = None
        self._current = Overrides.of_defaults(defaults)
        if settings.file:
            self._load()

    @property
    def current(self) -> Overrides:
        return self._current

    def limits(self, tenant: str) -> Limits:
        return self._current.limits(tenant)

    def reload(self, now_ms: int) -> bool:
        """Looks at the files if it is time to. True if something else is in force now.

        A file that cannot be read or used leaves everything as it was and shows in the metrics.
        """
        if not self._settings.file or (self._next_ms is not None and now_ms < self._next_ms):
            return False
        self._next_ms = now_ms + self._settings.period.ms
        try:
            return self._load()
        except ConfigError as error:
            if self._metrics:
                self._metrics.failed()
            log.warning("runtime configuration not reloaded, the previous one stays", error=str(error))
            return False

    def _load(self) -> bool:
        texts = [(path, read_config(path, self._read)) for path in self._settings.file]
        sha256 = _digest(texts)
        changed = sha256 != self._sha256
        if changed:
            self._current, warnings = parse((parse_yaml(text, path) for path, text in texts), self._defaults)
            for warning in warnings:
                log.warning("runtime configuration", warning=warning)
            self._sha256 = sha256
        if self._metrics:
            self._metrics.loaded(sha256)
        return changed


def _digest(texts: Sequence[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for _, text in texts:
        digest.update(text.encode())
    return digest.hexdigest()


def user_limits(limits: Limits) -> dict[str, float]:
    """The body of `/api/v1/user_limits`. Upstream: pkg/util/validation/user_limits_handler.go."""
    return {
        "compactor_blocks_retention_period_seconds": limits.compactor_blocks_retention_period.ms // 1000,
        "ingestion_rate": limits.ingestion_rate,
        "ingestion_burst_size": limits.ingestion_burst_size,
        "ingestion_burst_factor": limits.ingestion_burst_factor,
        "max_global_series_per_user": limits.max_global_series_per_user,
        "max_global_series_per_metric": limits.max_global_series_per_metric,
        "max_global_exemplars_per_user": limits.max_global_exemplars_per_user,
        "max_fetched_chunks_per_query": limits.max_fetched_chunks_per_query,
        "max_fetched_series_per_query": limits.max_fetched_series_per_query,
        "max_fetched_chunk_bytes_per_query": int(limits.max_fetched_chunk_bytes_per_query),
        "ruler_max_rules_per_rule_group": limits.ruler_max_rules_per_rule_group,
        "ruler_max_rule_groups_per_tenant": limits.ruler_max_rule_groups_per_tenant,
    }
