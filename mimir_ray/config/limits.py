"""Every limit that can differ between tenants, with Mimir's names, flags and defaults.

`Limits` is the `limits` block of the YAML file (the defaults for all tenants) and what a tenant's entry
in the runtime configuration overrides (overrides.py). A limit stands here when a role enforces it or is
about to; where 0 means "no limit" the help says so.

Upstream: Mimir's configuration parameters page, block `limits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimir_ray.config.setting import setting
from mimir_ray.config.tenant_rules import BlockedQuery, BlockedRequest, LimitedQuery, RelabelConfig
from mimir_ray.config.units import Bytes, Duration, duration, size

HASHED_VALUE_BYTES = len("(hash:)") + 64
"""What a label value that is too long may be replaced by."""
OtelTranslation = Literal[
    "", "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes",
    "NoTranslation",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one tenant."""

    # fmt: off
    # (A setting reads best as its default and flag on one line, and what it means.)

    # Distributor: rates.
    request_rate: float = setting(
        0.0, flag="distributor.request-rate-limit", unit="requests/s", minimum=0,
        help="Push requests a second that a tenant may send; 0 allows any number.",
        enforced_by=("roles/distributor/distributor.py",))
    request_burst_size: int = setting(
        0, flag="distributor.request-burst-size", unit="requests", minimum=0,
        help="Push requests that may come at once, with a request rate set.",
        enforced_by=("roles/distributor/distributor.py",))
    ingestion_rate: float = setting(
        10_000.0, flag="distributor.ingestion-rate-limit", unit="items/s", minimum=0,
        help="Samples, exemplars and metadata a second that a tenant may send.",
        enforced_by=("roles/distributor/distributor.py",))
    ingestion_burst_size: int = setting(
        200_000, flag="distributor.ingestion-burst-size", unit="items", minimum=0,
        help="Items that may come at once; a larger request always fails.",
        enforced_by=("roles/distributor/distributor.py",))
    ingestion_burst_factor: float = setting(
        0.0, flag="distributor.ingestion-burst-factor", category="experimental", minimum=0,
        help="Burst as a multiple of the ingestion rate, at least 1; overrides the burst size. 0 turns it off.",
        enforced_by=("roles/distributor/distributor.py",))
    ingestion_artificial_delay: Duration = setting(
        Duration(0), flag="distributor.ingestion-artificial-delay", category="experimental",
        help="Answers to pushes are held back until they took this long.",
        enforced_by=("roles/distributor/distributor.py",))

    # Distributor: pairs of identical senders.
    accept_ha_samples: bool = setting(
        False, flag="distributor.ha-tracker.enable-for-all-users",
        help="Whether samples of pairs of Prometheus servers are taken from one of each pair only.",
        enforced_by=("roles/distributor/distributor.py",))
    ha_cluster_label: str = setting(
        "cluster", flag="distributor.ha-tracker.cluster", help="The label that names the pair.",
        enforced_by=("roles/distributor/first_series.py",))
    ha_replica_label: str = setting(
        "__replica__", flag="distributor.ha-tracker.replica", help="The label that tells the two of a pair apart.",
        enforced_by=("roles/distributor/first_series.py", "roles/distributor/label_rules.py"))
    ha_max_clusters: int = setting(
        100, flag="distributor.ha-tracker.max-clusters", minimum=0,
        help="Pairs a tenant may have; 0 allows any number.",
        enforced_by=("roles/distributor/ha_tracker.py",))
    ha_tracker_update_timeout: Duration = setting(
        duration("15s"), flag="distributor.ha-tracker.update-timeout", category="advanced",
        help="The elected replica is written down again when the record is this old.",
        enforced_by=("roles/distributor/ha_tracker.py",))
    ha_tracker_update_timeout_jitter_max: Duration = setting(
        duration("5s"), flag="distributor.ha-tracker.update-timeout-jitter-max", category="advanced",
        help="Up to this much is added to the update timeout, to spread the writes.",
        enforced_by=("roles/distributor/ha_tracker.py",))
    ha_tracker_failover_timeout: Duration = setting(
        duration("30s"), flag="distributor.ha-tracker.failover-timeout", category="advanced",
        help="Another replica is elected when the elected one was silent for so long.",
        enforced_by=("roles/distributor/ha_tracker.py",))

    # Distributor: what a series and its metadata may look like.
    drop_labels: tuple[str, ...] = setting(
        (), flag="distributor.drop-label", category="advanced", help="Labels taken off every series.",
        enforced_by=("roles/distributor/label_rules.py",))
    max_label_name_length: int = setting(
        1024, flag="validation.max-length-label-name", unit="bytes", minimum=0, help="Longest label name.",
        enforced_by=("roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    max_label_value_length: int = setting(
        2048, flag="validation.max-length-label-value", unit="bytes", minimum=0,
        help="Longest label value, metric names included.",
        enforced_by=("roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    label_value_length_over_limit_strategy: Literal["error", "truncate", "drop"] = setting(
        "error", flag="validation.label-value-length-over-limit-strategy", category="experimental",
        help="What happens to a longer value: the series is refused, or the tail (truncate) or the whole (drop) gives "
             "way to a hash.",
        enforced_by=("roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    max_label_names_per_series: int = setting(
        30, flag="validation.max-label-names-per-series", minimum=0, help="Labels of a series, its name included.",
        enforced_by=("roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    max_label_names_per_info_series: int = setting(
        80, flag="validation.max-label-names-per-info-series", minimum=0,
        help="The same for series whose name ends in _info, where it is the larger number.",
        enforced_by=("roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    max_metadata_length: int = setting(
        1024, flag="validation.max-metadata-length", unit="bytes", minimum=0,
        help="Longest name and unit of a metric family; a longer help text is cut.",
        enforced_by=("roles/distributor/validation.py",))
    max_native_histogram_buckets: int = setting(
        0, flag="validation.max-native-histogram-buckets", minimum=0,
        help="Buckets of a native histogram sample; 0 allows any number.",
        enforced_by=("roles/distributor/histograms.py",))
    reduce_native_histogram_over_max_buckets: bool = setting(
        True, flag="validation.reduce-native-histogram-over-max-buckets",
        help="Whether histograms with more buckets are coarsened rather than refused.",
        enforced_by=("roles/distributor/histograms.py",))
    max_exemplars_per_series_per_request: int = setting(
        0, flag="distributor.max-exemplars-per-series-per-request", category="experimental", minimum=0,
        help="Exemplars of one series in a request; the others are dropped. 0 allows any number.",
        enforced_by=("roles/distributor/exemplars.py",))
    creation_grace_period: Duration = setting(
        duration("10m"), flag="validation.create-grace-period", category="advanced",
        help="How far ahead of the clock a sample may lie.",
        enforced_by=("roles/distributor/exemplars.py", "roles/distributor/validation.py"))
    past_grace_period: Duration = setting(
        Duration(0), flag="validation.past-grace-period", category="advanced",
        help="How far behind the clock, beyond the out-of-order window, a sample may lie; 0 leaves that to the "
             "ingester.",
        enforced_by=("roles/distributor/validation.py",))
    enforce_metadata_metric_name: bool = setting(
        True, flag="validation.enforce-metadata-metric-name", category="advanced",
        help="Whether metadata without a metric name is refused.",
        enforced_by=("roles/distributor/validation.py",))
    name_validation_scheme: Literal["legacy", "utf8"] = setting(
        "legacy", flag="validation.name-validation-scheme", category="experimental",
        help="Which metric and label names are valid: the classic character set, or any UTF-8.",
        enforced_by=(
            "gateway/blueprints/otlp.py", "roles/distributor/label_rules.py", "roles/distributor/validation.py"))
    ingestion_tenant_shard_size: int = setting(
        0, flag="distributor.ingestion-tenant-shard-size", minimum=0,
        help="Ingesters that hold a tenant's series, over all zones; 0 uses all.",
        enforced_by=("gateway/actor.py", "roles/ingester/tracking.py"))
    metric_relabel_configs: tuple[RelabelConfig, ...] = setting(
        (), flag="", category="experimental", help="Relabelling of every series; __meta_tenant_id is there to be read.",
        enforced_by=("roles/distributor/label_rules.py",))
    metric_relabeling_enabled: bool = setting(
        True, flag="distributor.metric-relabeling-enabled", category="experimental",
        help="Turns relabelling off without taking the rules away.",
        enforced_by=("roles/distributor/label_rules.py",))
    service_overload_status_code_on_rate_limit_enabled: bool = setting(
        False, flag="distributor.service-overload-status-code-on-rate-limit-enabled", category="experimental",
        help="Answers 529 instead of 429 where a rate limit is hit.",
        enforced_by=("roles/distributor/distributor.py",))
    separate_metrics_group_label: str = setting(
        "", flag="validation.separate-metrics-group-label", category="experimental",
        help="The label whose value becomes `group` in cortex_discarded_samples_total.",
        enforced_by=("roles/distributor/first_series.py",))

    # Distributor: OpenTelemetry.
    otel_metric_suffixes_enabled: bool = setting(
        False, flag="distributor.otel-metric-suffixes-enabled", category="advanced",
        help="Whether names of metrics get unit and type suffixes.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_created_timestamp_zero_ingestion_enabled: bool = setting(
        False, flag="distributor.otel-created-timestamp-zero-ingestion-enabled", category="experimental",
        help="Whether a start time becomes a sample of value 0.",
        enforced_by=("gateway/blueprints/otlp.py",))
    promote_otel_resource_attributes: tuple[str, ...] = setting(
        (), flag="distributor.otel-promote-resource-attributes", category="experimental",
        help="Resource attributes that become labels of every series.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_keep_identifying_resource_attributes: bool = setting(
        False, flag="distributor.otel-keep-identifying-resource-attributes", category="experimental",
        help="Whether target_info keeps the attributes that job and instance are made of.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_convert_histograms_to_nhcb: bool = setting(
        False, flag="distributor.otel-convert-histograms-to-nhcb", category="experimental",
        help="Whether explicit histograms become native ones with custom buckets.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_promote_scope_metadata: bool = setting(
        False, flag="distributor.otel-promote-scope-metadata", category="experimental",
        help="Whether name, version, schema URL and attributes of a scope become labels.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_native_delta_ingestion: bool = setting(
        False, flag="distributor.otel-native-delta-ingestion", category="experimental",
        help="Whether delta samples are stored as they come; otherwise they are refused.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_translation_strategy: OtelTranslation = setting(
        "", flag="distributor.otel-translation-strategy", category="experimental",
        help="How names are translated; empty derives it from the name scheme and the suffix setting.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_label_name_underscore_sanitization: bool = setting(
        True, flag="distributor.otel-label-name-underscore-sanitization", category="advanced",
        help="Whether a label with one leading underscore gets `key` in front.",
        enforced_by=("gateway/blueprints/otlp.py",))
    otel_label_name_preserve_underscores: bool = setting(
        True, flag="distributor.otel-label-name-preserve-underscores", category="advanced",
        help="Whether runs of underscores in label names stay.",
        enforced_by=("gateway/blueprints/otlp.py",))

    # Ingester.
    max_global_series_per_user: int = setting(
        150_000, flag="ingester.max-global-series-per-user", minimum=0,
        help="Series in memory of a tenant, over all ingesters, before replication; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py", "roles/ingester/tracking.py"))
    max_global_series_per_metric: int = setting(
        0, flag="ingester.max-global-series-per-metric", minimum=0,
        help="The same for one metric name; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py",))
    max_global_metadata_per_user: int = setting(
        0, flag="ingester.max-global-metadata-per-user", minimum=0,
        help="Metric families with metadata of a tenant; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py",))
    max_global_metadata_per_metric: int = setting(
        0, flag="ingester.max-global-metadata-per-metric", minimum=0,
        help="Different metadata of one metric family; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py",))
    max_global_exemplars_per_user: int = setting(
        0, flag="ingester.max-global-exemplars-per-user", category="experimental", minimum=0,
        help="Exemplars in memory of a tenant, the oldest make way; 0 stores none.",
        enforced_by=("roles/distributor/distributor.py", "roles/ingester/ingester.py"))
    ignore_ooo_exemplars: bool = setting(
        False, flag="ingester.ignore-ooo-exemplars", category="experimental",
        help="Whether exemplars out of order are dropped in silence rather than refused.",
        enforced_by=("roles/ingester/ingester.py",))
    native_histograms_ingestion_enabled: bool = setting(
        True, flag="ingester.native-histograms-ingestion-enabled", category="experimental",
        help="Whether native histograms are stored; otherwise they are dropped in silence.",
        enforced_by=("roles/distributor/distributor.py",))
    out_of_order_time_window: Duration = setting(
        Duration(0), flag="ingester.out-of-order-time-window", category="experimental",
        help="How far behind its tenant's newest sample a sample may lie; 0 takes samples in order only.",
        enforced_by=("roles/distributor/validation.py", "roles/ingester/ingester.py"))
    out_of_order_blocks_external_label_enabled: bool = setting(
        False, flag="ingester.out-of-order-blocks-external-label-enabled", category="experimental",
        help="Whether blocks of out-of-order samples get an external label, which keeps them apart when compacted.",
        enforced_by=("roles/ingester/ingester.py",))
    active_series_custom_trackers: dict[str, str] = setting(
        {}, flag="ingester.active-series-custom-trackers", category="advanced",
        help="Name to selector: active series that match are counted under the name.",
        enforced_by=("roles/ingester/trackers.py",))
    active_series_additional_custom_trackers: dict[str, str] = setting(
        {}, flag="", category="advanced", help="More trackers, put on top of the ones above.",
        enforced_by=("roles/ingester/trackers.py",))
    max_cost_attribution_cardinality: int = setting(
        2000, flag="validation.max-cost-attribution-cardinality", category="experimental", minimum=0,
        help="Different values of the cost attribution labels.")
    cost_attribution_labels: tuple[str, ...] = setting(
        (), flag="validation.cost-attribution-labels", category="experimental",
        help="Labels by which received and active series are counted for accounting.")
    cost_attribution_cooldown: Duration = setting(
        Duration(0), flag="validation.cost-attribution-cooldown", category="experimental",
        help="How long cost attribution stays in overflow before it tries again.")

    # Querier and store-gateway: per query.
    max_fetched_chunks_per_query: int = setting(
        2_000_000, flag="querier.max-fetched-chunks-per-query", minimum=0,
        help="Chunks that a query may read; 0 allows any number.",
        enforced_by=("roles/query_frontend/query_frontend.py", "roles/store_gateway/store_gateway.py"))
    max_estimated_fetched_chunks_per_query_multiplier: float = setting(
        0.0, flag="querier.max-estimated-fetched-chunks-per-query-multiplier", category="experimental", minimum=0,
        help="Bound for the estimate made before, as a multiple of the limit above; 0 turns it off.")
    max_fetched_series_per_query: int = setting(
        0, flag="querier.max-fetched-series-per-query", minimum=0,
        help="Series that a query may read; 0 allows any number.",
        enforced_by=("roles/query_frontend/query_frontend.py", "roles/store_gateway/store_gateway.py"))
    max_fetched_chunk_bytes_per_query: Bytes = setting(
        Bytes(0), flag="querier.max-fetched-chunk-bytes-per-query", minimum=0,
        help="Bytes of chunks that a query may read; 0 allows any number.",
        enforced_by=("roles/query_frontend/query_frontend.py", "roles/store_gateway/store_gateway.py"))
    max_estimated_memory_consumption_per_query: Bytes = setting(
        Bytes(0), flag="querier.max-estimated-memory-consumption-per-query", category="experimental", minimum=0,
        help="Memory that a query may hold at once, as the engine estimates it; 0 allows any amount.",
        enforced_by=("roles/query_frontend/query_frontend.py",))
    max_query_lookback: Duration = setting(
        Duration(0), flag="querier.max-query-lookback",
        help="How old data a query sees; older ranges are cut in silence. 0 shows everything.")
    max_partial_query_length: Duration = setting(
        Duration(0), flag="querier.max-partial-query-length",
        help="Longest time range of a query after splitting; 0 allows any.")
    max_query_parallelism: int = setting(
        14, flag="querier.max-query-parallelism", minimum=0, help="Parts of one query that run at once.")
    max_labels_query_length: Duration = setting(
        Duration(0), flag="store.max-labels-query-length",
        help="Longest time range of series and label queries; longer ones are cut in silence. 0 allows any.")
    max_series_query_limit: int = setting(
        0, flag="querier.max-series-query-limit", minimum=0,
        help="Series that the series endpoint returns at most; 0 allows any number.")
    max_label_names_limit: int = setting(
        0, flag="querier.max-label-names-limit", minimum=0,
        help="Names that the label names endpoint returns at most; 0 allows any number.")
    max_label_values_limit: int = setting(
        0, flag="querier.max-label-values-limit", minimum=0,
        help="Values that the label values endpoint returns at most; 0 allows any number.")
    query_ingesters_within: Duration = setting(
        duration("13h"), flag="querier.query-ingesters-within", category="advanced",
        help="Ingesters are asked when a query ends within this time; 0 asks them always.",
        enforced_by=("roles/querier/querier.py",))
    cardinality_analysis_enabled: bool = setting(
        False, flag="querier.cardinality-analysis-enabled", help="Whether the cardinality endpoints answer.")
    label_names_and_values_results_max_size_bytes: Bytes = setting(
        size("400MiB"), flag="querier.label-names-and-values-results-max-size-bytes", minimum=0,
        help="Largest answer of distinct names and values.")
    label_values_max_cardinality_label_names_per_request: int = setting(
        100, flag="querier.label-values-max-cardinality-label-names-per-request", minimum=0,
        help="Label names in one request for label values' cardinality.")
    cardinality_analysis_max_results: int = setting(
        500, flag="querier.cardinality-api-max-series-limit", category="experimental", minimum=0,
        help="Largest `limit` of a cardinality request.")
    active_series_results_max_size_bytes: Bytes = setting(
        size("400MiB"), flag="querier.active-series-results-max-size-bytes", category="experimental", minimum=0,
        help="Largest answer of the active series endpoint, per shard; 0 allows any.")

    # Query-frontend.
    max_total_query_length: Duration = setting(
        Duration(0), flag="query-frontend.max-total-query-length", help="Longest time range of a query; 0 allows any.")
    max_query_expression_size_bytes: Bytes = setting(
        Bytes(0), flag="query-frontend.max-query-expression-size-bytes", minimum=0,
        help="Longest text of a query; 0 allows any.",
        enforced_by=("roles/query_frontend/query_frontend.py",))
    max_cache_freshness: Duration = setting(
        duration("10m"), flag="query-frontend.max-cache-freshness", category="advanced",
        help="Results younger than this are not cached, as they may still change.")
    max_queriers_per_tenant: int = setting(
        0, flag="query-frontend.max-queriers-per-tenant", minimum=0,
        help="Queriers that work for a tenant at most; 0 uses all.")
    query_sharding_total_shards: int = setting(
        16, flag="query-frontend.query-sharding-total-shards", minimum=0,
        help="Shards that a query is cut into; 0 turns sharding off.")
    query_sharding_max_sharded_queries: int = setting(
        128, flag="query-frontend.query-sharding-max-sharded-queries", minimum=0,
        help="Sharded parts of one query at most; 0 allows any number.")
    query_sharding_max_regexp_size_bytes: Bytes = setting(
        Bytes(4096), flag="query-frontend.query-sharding-max-regexp-size-bytes", minimum=0,
        help="Queries with a longer regular expression are not sharded; 0 shards any.")
    split_instant_queries_by_interval: Duration = setting(
        Duration(0), flag="query-frontend.split-instant-queries-by-interval", category="experimental",
        help="Instant queries over longer ranges are split by this interval; 0 does not split them.")
    results_cache_ttl: Duration = setting(
        duration("1w"), flag="query-frontend.results-cache-ttl", help="How long results stay cached.")
    results_cache_ttl_for_out_of_order_time_window: Duration = setting(
        duration("10m"), flag="query-frontend.results-cache-ttl-for-out-of-order-time-window",
        help="The same for results that lie within the out-of-order window.")
    results_cache_ttl_for_cardinality_query: Duration = setting(
        Duration(0), flag="query-frontend.results-cache-ttl-for-cardinality-query",
        help="The same for cardinality requests; 0 does not cache them.")
    results_cache_ttl_for_labels_query: Duration = setting(
        Duration(0), flag="query-frontend.results-cache-ttl-for-labels-query",
        help="The same for label names and values; 0 does not cache them.")
    results_cache_ttl_for_errors: Duration = setting(
        duration("5m"), flag="query-frontend.results-cache-ttl-for-errors",
        help="The same for errors that will not go away by themselves.")
    cache_unaligned_requests: bool = setting(
        False, flag="query-frontend.cache-unaligned-requests", category="advanced",
        help="Whether queries whose start and end are no multiples of the step are cached.")
    align_queries_with_step: bool = setting(
        False, flag="query-frontend.align-queries-with-step",
        help="Moves start and end of queries to multiples of the step; the answers differ from Prometheus' then.")
    enabled_promql_experimental_functions: tuple[str, ...] = setting(
        (), flag="query-frontend.enabled-promql-experimental-functions",
        help="Experimental PromQL functions that may be used, or `all`.",
        enforced_by=("roles/query_frontend/experimental.py",))
    enabled_promql_extended_range_selectors: tuple[str, ...] = setting(
        (), flag="query-frontend.enabled-promql-extended-range-selectors", category="experimental",
        help="Modifiers of selectors (`anchored`, `smoothed`) that may be used, or `all`.",
        enforced_by=("roles/query_frontend/experimental.py",))
    enabled_promql_binop_fill_modifiers: tuple[str, ...] = setting(
        (), flag="query-frontend.enabled-promql-binop-fill-modifiers", category="experimental",
        help="Fill modifiers of binary operators (`fill`, `fill_left`, `fill_right`) that may be used, or `all`.",
        enforced_by=("roles/query_frontend/experimental.py",))
    enable_delayed_name_removal: bool = setting(
        False, flag="querier.enable-delayed-name-removal", category="experimental",
        help="Takes metric names away at the end of a query, not at each function, so functions can still see them.",
        enforced_by=("roles/query_frontend/query_frontend.py",))
    use_start_timestamps: bool = setting(
        False, flag="querier.use-start-timestamps", category="experimental",
        help="Has `rate`, `increase`, `irate`, `resets` and `start_timestamp` look at the start timestamps of samples, "
        "as Prometheus' feature flag `use-start-timestamps` does.",
        enforced_by=("roles/query_frontend/query_frontend.py",))
    enable_type_and_unit_labels: bool = setting(
        False, flag="querier.enable-type-and-unit-labels", category="experimental",
        help="Has `rate` and `increase` tell what is a counter by the label `__type__`, as Prometheus' feature flag "
        "`type-and-unit-labels` does, not by the end of the metric's name.",
        enforced_by=("roles/query_frontend/query_frontend.py",))
    prom2_range_compat: bool = setting(
        False, flag="query-frontend.prom2-range-compat", category="experimental",
        help="Rewrites subqueries like [1m:1m] so that they give what Prometheus 2 gave.")
    subquery_spin_off_enabled: bool = setting(
        False, flag="query-frontend.subquery-spin-off-enabled", category="experimental",
        help="Runs heavy subqueries of instant queries as range queries.")
    labels_query_optimizer_enabled: bool = setting(
        True, flag="query-frontend.labels-query-optimizer-enabled", category="advanced",
        help="Lets label queries be rewritten into cheaper ones.")
    blocked_queries: tuple[BlockedQuery, ...] = setting(
        (), flag="", category="experimental", help="Queries that are refused.")
    limited_queries: tuple[LimitedQuery, ...] = setting(
        (), flag="", category="experimental", help="Queries that may run once in a while.")
    blocked_requests: tuple[BlockedRequest, ...] = setting(
        (), flag="", category="experimental", help="HTTP requests that are refused.")

    # Ruler.
    ruler_evaluation_delay_duration: Duration = setting(
        duration("1m"), flag="ruler.evaluation-delay-duration",
        help="Rules are evaluated for a time this long ago, so that their samples have come in.")
    ruler_tenant_shard_size: int = setting(
        0, flag="ruler.tenant-shard-size", minimum=0, help="Rulers that work for a tenant; 0 uses all.")
    ruler_max_rules_per_rule_group: int = setting(
        20, flag="ruler.max-rules-per-rule-group", minimum=0, help="Rules in a group; 0 allows any number.")
    ruler_max_rule_groups_per_tenant: int = setting(
        70, flag="ruler.max-rule-groups-per-tenant", minimum=0, help="Rule groups of a tenant; 0 allows any number.")
    ruler_max_rules_per_rule_group_by_namespace: dict[str, int] = setting(
        {}, flag="ruler.max-rules-per-rule-group-by-namespace", category="experimental",
        help="The limit of rules in a group for single namespaces.")
    ruler_max_rule_groups_per_tenant_by_namespace: dict[str, int] = setting(
        {}, flag="ruler.max-rule-groups-per-tenant-by-namespace", category="experimental",
        help="The limit of groups for single namespaces.")
    ruler_protected_namespaces: tuple[str, ...] = setting(
        (), flag="ruler.protected-namespaces", category="experimental",
        help="Namespaces that are changed only with the override header.")
    ruler_recording_rules_evaluation_enabled: bool = setting(
        True, flag="ruler.recording-rules-evaluation-enabled", help="Whether recording rules are evaluated.")
    ruler_alerting_rules_evaluation_enabled: bool = setting(
        True, flag="ruler.alerting-rules-evaluation-enabled", help="Whether alerting rules are evaluated.")
    ruler_sync_rules_on_changes_enabled: bool = setting(
        True, flag="ruler.sync-rules-on-changes-enabled", category="advanced",
        help="Whether a change through the API is taken up at once.")
    ruler_max_independent_rule_evaluation_concurrency_per_tenant: int = setting(
        4, flag="ruler.max-independent-rule-evaluation-concurrency-per-tenant", category="experimental", minimum=0,
        help="Independent rules of a tenant that run at once; 0 runs them one by one.")
    ruler_min_rule_evaluation_interval: Duration = setting(
        Duration(0), flag="ruler.min-rule-evaluation-interval", category="experimental",
        help="Shortest evaluation interval of a group.")
    ruler_max_rule_evaluation_results: int = setting(
        0, flag="ruler.max-rule-evaluation-results", category="experimental", minimum=0,
        help="Series that one rule may give; 0 allows any number.")

    # Store-gateway and compactor.
    store_gateway_tenant_shard_size: int = setting(
        0, flag="store-gateway.tenant-shard-size", minimum=0,
        help="Store-gateways that hold a tenant's blocks; 0 uses all.",
        enforced_by=("bucket/sharding.py",))
    store_gateway_tenant_shard_size_per_zone: int = setting(
        0, flag="store-gateway.tenant-shard-size-per-zone", category="experimental", minimum=0,
        help="The same in each zone; 0 leaves it to the setting above.",
        enforced_by=("bucket/sharding.py",))
    compactor_blocks_retention_period: Duration = setting(
        Duration(0), flag="compactor.blocks-retention-period",
        help="Blocks older than this are deleted, and queries do not look further back; 0 keeps them.",
        enforced_by=("roles/compactor/block_upload.py", "roles/compactor/cleaner.py"))
    compactor_split_and_merge_shards: int = setting(
        0, flag="compactor.split-and-merge-shards", minimum=0,
        help="Shards that blocks are split into; 0 does not split.",
        enforced_by=("roles/compactor/compactor.py",))
    compactor_split_groups: int = setting(
        1, flag="compactor.split-groups", minimum=1, help="Groups of blocks that are split separately.",
        enforced_by=("roles/compactor/compactor.py",))
    compactor_tenant_shard_size: int = setting(
        0, flag="compactor.compactor-tenant-shard-size", minimum=0,
        help="Compactors that work for a tenant; 0 uses all.",
        enforced_by=("gateway/compaction.py", "roles/compactor/actor.py"))
    compactor_partial_block_deletion_delay: Duration = setting(
        duration("1d"), flag="compactor.partial-block-deletion-delay",
        help="Blocks without meta.json, untouched for so long, are deleted; less than 4h turns it off.",
        enforced_by=("roles/compactor/cleaner.py",))
    compactor_block_upload_enabled: bool = setting(
        False, flag="compactor.block-upload-enabled", help="Whether blocks can be uploaded.",
        enforced_by=("roles/compactor/block_upload.py", "roles/compactor/compactor.py"))
    compactor_block_upload_validation_enabled: bool = setting(
        True, flag="compactor.block-upload-validation-enabled", help="Whether uploaded blocks are checked.",
        enforced_by=("roles/compactor/block_upload.py",))
    compactor_block_upload_verify_chunks: bool = setting(
        True, flag="compactor.block-upload-verify-chunks", help="Whether the check reads every chunk.",
        enforced_by=("roles/compactor/block_upload.py",))
    compactor_block_upload_max_block_size_bytes: Bytes = setting(
        Bytes(0), flag="compactor.block-upload-max-block-size-bytes", category="advanced", minimum=0,
        help="Largest block that can be uploaded; 0 allows any.",
        enforced_by=("roles/compactor/block_upload.py",))
    compactor_max_lookback: Duration = setting(
        Duration(0), flag="compactor.max-lookback", category="experimental",
        help="Blocks uploaded longer ago are not compacted; 0 considers all.",
        enforced_by=("roles/compactor/compactor.py",))
    s3_sse_type: str = setting("", flag="", help="S3 server-side encryption: SSE-KMS or SSE-S3; empty as for all.")
    s3_sse_kms_key_id: str = setting("", flag="", help="The KMS key, with SSE-KMS.")
    s3_sse_kms_encryption_context: str = setting("", flag="", help="The KMS encryption context, as JSON text.")

    # Alertmanager.
    alertmanager_receivers_firewall_block_cidr_networks: tuple[str, ...] = setting(
        (), flag="alertmanager.receivers-firewall-block-cidr-networks",
        help="Networks that notifications must not go to.")
    alertmanager_receivers_firewall_block_private_addresses: bool = setting(
        False, flag="alertmanager.receivers-firewall-block-private-addresses",
        help="Whether notifications to private and local addresses are blocked.")
    alertmanager_notification_rate_limit: float = setting(
        0.0, flag="alertmanager.notification-rate-limit", unit="notifications/s",
        help="Notifications a second per integration; 0 allows any number, below 0 none.")
    alertmanager_notification_rate_limit_per_integration: dict[str, float] = setting(
        {}, flag="alertmanager.notification-rate-limit-per-integration", help="The same for single integrations.")
    alertmanager_max_config_size_bytes: Bytes = setting(
        Bytes(0), flag="alertmanager.max-config-size-bytes", minimum=0, help="Largest configuration; 0 allows any.")
    alertmanager_max_silences_count: int = setting(
        0, flag="alertmanager.max-silences-count", minimum=0, help="Silences, expired ones too; 0 allows any number.")
    alertmanager_max_silence_size_bytes: Bytes = setting(
        Bytes(0), flag="alertmanager.max-silence-size-bytes", minimum=0, help="Largest silence; 0 allows any.")
    alertmanager_max_templates_count: int = setting(
        0, flag="alertmanager.max-templates-count", minimum=0, help="Templates; 0 allows any number.")
    alertmanager_max_template_size_bytes: Bytes = setting(
        Bytes(0), flag="alertmanager.max-template-size-bytes", minimum=0, help="Largest template; 0 allows any.")
    alertmanager_max_dispatcher_aggregation_groups: int = setting(
        0, flag="alertmanager.max-dispatcher-aggregation-groups", minimum=0,
        help="Groups of alerts at once; 0 allows any number.")
    alertmanager_max_alerts_count: int = setting(
        0, flag="alertmanager.max-alerts-count", minimum=0, help="Alerts at once; 0 allows any number.")
    alertmanager_max_alerts_size_bytes: Bytes = setting(
        Bytes(0), flag="alertmanager.max-alerts-size-bytes", minimum=0,
        help="Bytes of all alerts' labels, annotations and links; 0 allows any.")
    # fmt: on

    def problems(self) -> Iterator[tuple[str, str]]:
        """Upstream: Mimir's checks of limits when they are read."""
        if 0 < self.ingestion_burst_factor < 1:
            yield "ingestion_burst_factor", "must be at least 1, or 0 to turn it off"
        if 0 < self.max_estimated_fetched_chunks_per_query_multiplier < 1:
            yield "max_estimated_fetched_chunks_per_query_multiplier", "must be at least 1, or 0 to turn it off"
        shortest = self.ha_tracker_update_timeout + self.ha_tracker_update_timeout_jitter_max + 1000
        if self.ha_tracker_failover_timeout < shortest:
            yield (
                "ha_tracker_failover_timeout",
                f"must be at least the update timeout, its jitter and one second: {Duration(shortest)}",
            )
        if self.label_value_length_over_limit_strategy != "error" and self.max_label_value_length < HASHED_VALUE_BYTES:
            yield (
                "label_value_length_over_limit_strategy",
                f"{self.label_value_length_over_limit_strategy} puts a hash in place of a value, for which "
                f"max_label_value_length must be at least {HASHED_VALUE_BYTES}",
            )
        if self.otel_translation_strategy:
            yield from self._contradictions(self.otel_translation_strategy)

    def _contradictions(self, strategy: str) -> Iterator[tuple[str, str]]:
        """The strategy says again what two other limits say, and must agree with them."""
        scheme = "legacy" if strategy.startswith("Underscore") else "utf8"
        if self.name_validation_scheme != scheme:
            yield "otel_translation_strategy", f"{strategy} needs name_validation_scheme {scheme}"
        suffixes = strategy.endswith("WithSuffixes")
        if self.otel_metric_suffixes_enabled != suffixes:
            wanted = str(suffixes).lower()
            yield "otel_translation_strategy", f"{strategy} needs otel_metric_suffixes_enabled {wanted}"
