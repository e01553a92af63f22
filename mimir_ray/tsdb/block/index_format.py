"""What the two sides of the index file share. Format: prometheus/tsdb/docs/format/index.md, version 2."""

from __future__ import annotations

import struct

INDEX_FILE = "index"
MAGIC = 0xBAAAD700
VERSION = 2
READABLE_VERSIONS = (2, 3)
"""Upstream reads 3 as it reads 2, and writes 2."""
HEADER = struct.pack(">IB", MAGIC, VERSION)
TOC = struct.Struct(">6Q")
"""Offsets of symbols, series, label indices, label offset table, postings, postings offset table."""
TOC_BYTES = TOC.size + 4
SERIES_ALIGNMENT = 16
BYTES_MAX = 16 << 32
"""Series are referred to by 32 bits of offset / 16."""
SECTION_BYTES_MAX = (1 << 32) - 1
