"""Metrics of the distributor, with Mimir's names. Upstream: pkg/distributor/distributor.go."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mimir_ray.model.tenant import TenantId

_BODY_BYTES_BUCKETS = tuple(float(1 << power) for power in range(10, 27))


class TenantMetrics:
    """The children of one tenant, looked up once."""

    def __init__(self, metrics: DistributorMetrics, tenant: str) -> None:
        self.tenant = TenantId(tenant)
        self.requests_in = {
            version: metrics.requests_in.labels(tenant, version) for version in ("1.0", "2.0", "otlp", "influx")
        }
        self.samples_in = metrics.samples_in.labels(tenant)
        self.exemplars_in = metrics.exemplars_in.labels(tenant)
        self.metadata_in = metrics.metadata_in.labels(tenant)
        self.received_requests = metrics.received_requests.labels(tenant)
        self.received_samples = metrics.received_samples.labels(tenant)
        self.received_exemplars = metrics.received_exemplars.labels(tenant)
        self.received_metadata = metrics.received_metadata.labels(tenant)
        self.body_bytes = metrics.body_bytes.labels(tenant)
        self.latest_timestamp = metrics.latest_timestamp.labels(tenant)
        self.non_ha_samples = metrics.non_ha_samples.labels(tenant)


class DistributorMetrics:
    """All families, in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.requests_in = counter(
            "cortex_distributor_requests_in", "Requests that came in, rejected ones included.", "user", "version"
        )
        self.samples_in = counter(
            "cortex_distributor_samples_in", "Samples that came in, rejected ones included.", "user"
        )
        self.exemplars_in = counter(
            "cortex_distributor_exemplars_in", "Exemplars that came in, rejected ones included.", "user"
        )
        self.metadata_in = counter(
            "cortex_distributor_metadata_in", "Metadata that came in, rejected ones included.", "user"
        )
        self.received_requests = counter(
            "cortex_distributor_received_requests", "Requests that passed the rate limits.", "user"
        )
        self.received_samples = counter(
            "cortex_distributor_received_samples", "Samples that were accepted and sent to ingesters.", "user"
        )
        self.received_exemplars = counter(
            "cortex_distributor_received_exemplars", "Exemplars that were accepted and sent to ingesters.", "user"
        )
        self.received_metadata = counter(
            "cortex_distributor_received_metadata", "Metadata that were accepted and sent to ingesters.", "user"
        )
        self.deduped_samples = counter(
            "cortex_distributor_deduped_samples", "Samples of replicas that are not the elected one.", "user", "cluster"
        )
        self.non_ha_samples = counter(
            "cortex_distributor_non_ha_samples_received", "Samples without the labels of an HA pair.", "user"
        )
        self.latest_timestamp = gauge(
            "cortex_distributor_latest_seen_sample_timestamp_seconds", "Newest timestamp of any sample.", "user"
        )
        self.body_bytes = Histogram(
            "cortex_distributor_uncompressed_request_body_size_bytes",
            "Size of push requests after decompression.",
            ("user",),
            registry=registry,
            buckets=_BODY_BYTES_BUCKETS,
        )
        self.inflight = gauge("cortex_distributor_inflight_push_requests", "Push requests being worked on.")
        self.inflight_bytes = gauge(
            "cortex_distributor_inflight_push_requests_bytes", "Uncompressed bytes of push requests being worked on."
        )
        self.instance_limits = gauge(
            "cortex_distributor_instance_limits", "What this distributor takes on at once.", "limit"
        )
        self.instance_rejected = counter(
            "cortex_distributor_instance_rejected_requests", "Requests over the limits of this instance.", "reason"
        )
        self.ingestion_rate = gauge(
            "cortex_distributor_ingestion_rate_samples_per_second", "Items a second that are taken, smoothed."
        )
        self.replication_factor = gauge(
            "cortex_distributor_replication_factor", "Ingesters that every series is written to."
        )
        self.appends = counter("cortex_distributor_ingester_appends", "Batches sent to ingesters.", "ingester", "type")
        self.append_failures = counter(
            "cortex_distributor_ingester_append_failures", "Batches that ingesters did not take.", "ingester", "type"
        )
        self.discarded_samples = counter(
            "cortex_discarded_samples", "Samples that were refused.", "user", "group", "reason"
        )
        self.discarded_exemplars = counter(
            "cortex_discarded_exemplars", "Exemplars that were refused.", "user", "reason"
        )
        self.discarded_metadata = counter("cortex_discarded_metadata", "Metadata that were refused.", "user", "reason")
        self.discarded_requests = counter("cortex_discarded_requests", "Requests that were refused.", "user", "reason")
        self.calls = counter(
            "cortex_distributor_ingester_calls", "Calls to ingesters; each carries batches.", "ingester"
        )
        self.calls_inflight = gauge(
            "cortex_distributor_ingester_calls_inflight", "Calls to ingesters under way.", "ingester"
        )
        self.queue_batches = gauge(
            "cortex_distributor_ingester_queue_batches", "Batches that wait for a call to their ingester.", "ingester"
        )
        self.queue_bytes = gauge(
            "cortex_distributor_ingester_queue_bytes", "Bytes that wait for a call to their ingester.", "ingester"
        )
        self.cached_series = gauge(
            "cortex_distributor_series_cache_series", "Series that are recognised without looking at labels.", "user"
        )

    def forget_tenant(self, tenant: str) -> None:
        """Takes the tenant's values out of the exposition."""
        for family in (
            self.samples_in,
            self.deduped_samples,
            self.non_ha_samples,
            self.exemplars_in,
            self.metadata_in,
            self.received_requests,
            self.received_samples,
            self.received_exemplars,
            self.received_metadata,
            self.latest_timestamp,
            self.body_bytes,
            self.requests_in,
            self.discarded_samples,
            self.discarded_exemplars,
            self.discarded_metadata,
            self.discarded_requests,
            self.cached_series,
        ):
            family.remove_by_labels({"user": tenant})


class HaTrackerMetrics:
    """What a distributor knows of HA pairs. Upstream: pkg/distributor/ha_tracker.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.changes = Counter(
            "cortex_ha_tracker_elected_replica_changes",
            "Times that another replica was found to be elected.",
            ("user", "cluster"),
            registry=registry,
        )
        self.timestamp = Gauge(
            "cortex_ha_tracker_elected_replica_timestamp_seconds",
            "When samples of the elected replica were noted last.",
            ("user", "cluster"),
            registry=registry,
        )
        self.claims = Counter(
            "cortex_ha_tracker_kv_store_cas",
            "Questions to the ring, who is elected.",
            ("user", "cluster"),
            registry=registry,
        )

    def forget(self, user: str, cluster: str) -> None:
        """Takes a pair out of the exposition."""
        for family in (self.changes, self.timestamp, self.claims):
            family.remove_by_labels({"user": user, "cluster": cluster})
