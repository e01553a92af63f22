"""Settings of Mimir that mean something to its Go process only.

Somebody who brings their Mimir configuration along should not have to edit it for these: Ray does the
work behind them (membership, calls between processes), or there is nothing to set. They are read, named
in a warning, and have no effect. Anything else that we do not know is an error.
"""

from __future__ import annotations

import re

_RAY_CALLS = "processes talk through Ray, not gRPC"
_RAY_MEMBERS = "membership is kept by Ray, there is no gossip and no key-value store"
_NOT_USED = "it is not used here"
_OWN_CACHES = "caches live in the processes' own memory"

_RULES: tuple[tuple[str, str], ...] = (
    (r"memberlist(\..*)?", _RAY_MEMBERS),
    (r".*\.kvstore(\..*)?", _RAY_MEMBERS),
    (r".*\.(consul|etcd|multi)(\..*)?", _RAY_MEMBERS),
    (r"-.*ring\.(store|prefix|consul\..*|etcd\..*|multi\..*)", _RAY_MEMBERS),
    (r".*\.instance_(addr|port|interface_names|enable_ipv6)", _RAY_MEMBERS),
    (r"-.*\.instance-(addr|port|interface-names|enable-ipv6)", _RAY_MEMBERS),
    (r"-?.*ha-tracker\.(store|prefix|consul\..*|etcd\..*|multi\..*)", _RAY_MEMBERS),
    (r"server\.grpc.*", _RAY_CALLS),
    (r".*\.grpc_client_config(\..*)?", _RAY_CALLS),
    (r".*\.grpc-client-config(\..*)?", _RAY_CALLS),
    (
        r"-(ingester|querier\.frontend|querier\.scheduler|query-frontend|query-scheduler|ruler\.client)\.grpc.*",
        _RAY_CALLS,
    ),
    (r"ingester_client(\..*)?", _RAY_CALLS),
    (r"-ingester\.client\..*", _RAY_CALLS),
    (r"frontend_worker(\..*)?", _RAY_CALLS),
    (r"-querier\.(frontend|scheduler)-(address|client)(\..*)?", _RAY_CALLS),
    (r"frontend\.scheduler_address", _RAY_CALLS),
    (r"-query-frontend\.scheduler-address", _RAY_CALLS),
    (r".*\.(memcached|redis)(\..*)?", _OWN_CACHES),
    (r".*\.s3\.http\.(expect_continue_timeout|max_idle_connections|max_idle_connections_per_host)", _NOT_USED),
    (r"-.*\.s3\.(expect-continue-timeout|max-idle-connections|max-idle-connections-per-host)", _NOT_USED),
    (r".*\.s3\.trace\.enable", _NOT_USED),
    (r"usage_stats(\..*)?|-usage-stats\..*", "nothing is reported to anybody"),
    (r"activity_tracker(\..*)?|-activity-tracker\..*", "requests in flight are listed by the gateway"),
    (r"enable_go_runtime_metrics|-enable-go-runtime-metrics", "there is no Go runtime"),
    (r"include_tenant_id_in_profile_labels|-include-tenant-id-in-profile-labels", "there is no Go profiler"),
    (
        r"server\.(register_instrumentation|proxy_protocol_enabled|http_listen_network|report_grpc_codes.*)",
        "not used here",
    ),
    (
        r"compactor\.sharding_ring\.(wait_active_instance_timeout|auto_forget_unhealthy_periods)",
        "a compactor waits for the ring for as long as it takes, and is forgotten after 10 heartbeat timeouts",
    ),
    (
        r"-compactor\.ring\.(wait-active-instance-timeout|auto-forget-unhealthy-periods)",
        "a compactor waits for the ring for as long as it takes, and is forgotten after 10 heartbeat timeouts",
    ),
    (
        r"compactor\.(max_opening_blocks_concurrency|max_closing_blocks_concurrency|symbols_flushers_concurrency)",
        "blocks are merged in one pass",
    ),
    (
        r"-compactor\.(max-opening-blocks-concurrency|max-closing-blocks-concurrency|symbols-flushers-concurrency)",
        "blocks are merged in one pass",
    ),
    (r"-debug\.(block|mutex)-profile-(rate|fraction)|-mem-ballast-size-bytes", "there is no Go runtime"),
    (
        r"-server\.(register-instrumentation|proxy-protocol-enabled|http-listen-network|report-grpc-codes.*)",
        "not used here",
    ),
)
_COMPILED = tuple((re.compile(f"-?(?:{pattern})"), reason) for pattern, reason in _RULES)


NOT_YET = (
    "common",
    "ruler",
    "ruler_storage",
    "alertmanager",
    "alertmanager_storage",
    "store_gateway",
    "frontend",
    "query_scheduler",
    "overrides_exporter",
    "ingest_storage",
    "block_builder",
    "block_builder_scheduler",
    "vault",
    "blocks_storage",
    "cost_attribution_registry_path",
)
"""Blocks of Mimir whose parts are not here; also the beginnings of its flags."""


def not_here_yet(name: str) -> bool:
    """Whether Mimir has this setting (YAML path, or flag with one dash) for a part that we do not have."""
    first = name.removeprefix("-").replace("-", "_").partition(".")[0]
    return first in NOT_YET


def only_for_go(name: str) -> str:
    """Why a setting (YAML path, or flag with one dash) has no effect here; "" if it is not such a one."""
    for pattern, reason in _COMPILED:
        if pattern.fullmatch(name):
            return reason
    return ""
