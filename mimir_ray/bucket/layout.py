"""Which key of the blocks bucket holds what, and who writes it: Mimir's layout.

    <tenant>/<ULID>/meta.json              whoever made the block, as its last object: with it the block is there
    <tenant>/<ULID>/index, chunks/NNNNNN
    <tenant>/<ULID>/deletion-mark.json     compactor; a copy of the one in markers/
    <tenant>/<ULID>/no-compact-mark.json
    <tenant>/<ULID>/uploading-meta.json, validation.json    block upload API, while it lasts
    <tenant>/markers/<ULID>-deletion-mark.json, <ULID>-no-compact-mark.json     what readers list
    <tenant>/markers/tenant-deletion-mark.json
    <tenant>/bucket-index.json.gz          compactor
    <tenant>/debug/metas/<ULID>.json       compactor: the meta.json of a deleted block

Upstream: pkg/storage/tsdb/bucketindex, pkg/storage/tsdb/block. Tenants come validated (model/tenant.py).
"""

from __future__ import annotations

from mimir_ray.model.tenant import TenantId

META = "meta.json"
INDEX = "index"
CHUNKS = "chunks"
DELETION_MARK = "deletion-mark.json"
NO_COMPACT_MARK = "no-compact-mark.json"
UPLOADING_META = "uploading-meta.json"
VALIDATION = "validation.json"
MARKERS = "markers"
BUCKET_INDEX = "bucket-index.json.gz"
TENANT_DELETION_MARK = "tenant-deletion-mark.json"
CLUSTER_FOLDER = "__mimir_cluster"
"""A folder beside the tenants that is none."""


def tenant_prefix(tenant: TenantId) -> str:
    return f"{tenant}/"


def block_prefix(tenant: TenantId, ulid: str) -> str:
    return f"{tenant}/{ulid}/"


def block_key(tenant: TenantId, ulid: str, file: str) -> str:
    """`file`: a path inside the block, as in `meta.json`'s `thanos.files`."""
    return f"{tenant}/{ulid}/{file}"


def markers_prefix(tenant: TenantId) -> str:
    return f"{tenant}/{MARKERS}/"


def marker_key(tenant: TenantId, ulid: str, mark: str) -> str:
    """The global copy of `DELETION_MARK` or `NO_COMPACT_MARK`."""
    return f"{tenant}/{MARKERS}/{ulid}-{mark}"


def tenant_deletion_mark_key(tenant: TenantId) -> str:
    return f"{tenant}/{MARKERS}/{TENANT_DELETION_MARK}"


def bucket_index_key(tenant: TenantId) -> str:
    return f"{tenant}/{BUCKET_INDEX}"


def debug_meta_key(tenant: TenantId, ulid: str) -> str:
    return f"{tenant}/debug/metas/{ulid}.json"
