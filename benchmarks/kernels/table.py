"""By which workload each kernel is reached; tests/test_tidy.py checks that none is missing."""

from __future__ import annotations

_REACHED: dict[str, str] = {
    "bucket": """
        bucket.block_reader: decode_lists entry_lengths keep_among measure_lists
        bucket.few_series: find_equal read_few
        bucket.header_tables: find_prefix find_values list_bounds string_bounds walk_strings walk_table
        bucket.label_sets: fill_codes find_column group_sets number_strings
        model.regex_automaton: run_automaton
        model.regex_verdicts: add_judged find_judged
        tsdb.block.chunk_files: gather_from_segments locate_in_segments
    """,
    "requests": """
        encoding.hashing: _fnv1_32_all
        model.label_rows: copy_rows group_rows join_spans write_rows
        roles.distributor.canonical: _sort_sections _split_sections
        roles.distributor.request: _deal gather_sections
        roles.distributor.section_rows: _read_rows _write_rows
        roles.distributor.series_cache: _add _fill_slots _find
        roles.distributor.validation: _judge
        wire.exemplars: gather_label_fields judge_exemplars read_exemplar_numbers
        wire.remote_write: _scan hash_sections read_created
        wire.remote_write_v2: _scan
        wire.remote_write_v2_plain: hash_plain read_plain
        wire.remote_write_v2_symbols: find_symbols hash_symbols
        wire.write_scan: write_sections
    """,
    "compaction": """
        encoding.hashing: _fnv1a_32_all _xxhash64_all
        tsdb.block.chunk_files: pack_chunks
        tsdb.block.chunk_merge: cluster_chunks
        tsdb.block.index_writer: encode_series
    """,
    "blocks": """
        model.boxed: count_boxed
        tsdb.block.chunk_merge: ranges_equal
        tsdb.block.from_head: list_chunks
        tsdb.block.index_reader: decode_labels decode_postings find_postings find_strings measure_series number_pairs
            read_chunk_lists
        tsdb.block.index_writer: encode_postings encode_postings_table encode_symbols sort_by_symbol spread_references
        tsdb.block.ordering: differs_from_previous merge_sort
        tsdb.block.series_labels: gather
        tsdb.block.tombstones: decode_tombstones encode_tombstones
        tsdb.chunks.histogram: decode_histograms measure_histograms
        tsdb.chunks.histogram_encode: cut_histograms encode_histograms join_buckets whole_runs
        tsdb.chunks.open_chunks: _take
        tsdb.chunks.xor: append_runs chunk_counts decode_chunks
        tsdb.head.reading: trim
        tsdb.head.sample_log: append_samples
        tsdb.index.interning: stable_hashes
    """,
    "queries": """
        promql.kernels.aggregations: are_tied count_cells finish_mean fold_count fold_extreme fold_mean fold_presence
            fold_quantile fold_sum fold_variance merge_mean merge_rows merge_sum select_extremes select_first
        promql.kernels.dates: date_part
        promql.kernels.elementwise: clamp extreme_of_two logarithm
        promql.kernels.extended: anchored_events extended_rate extended_window smoothed_values
        promql.kernels.grouping: find_rows index_rows presence_by_group rows_by_group
        promql.kernels.histogram_classic: bucket_fraction bucket_quantile
        promql.kernels.joins: first_clash
        promql.kernels.label_hash: xxhash64
        promql.kernels.over_time: extreme_over_time pick_over_time sum_over_time variance_over_time
        promql.kernels.quantile: mad_over_time quantile_over_time
        promql.kernels.rate: count_events extrapolated_rate last_difference
        promql.kernels.regression: double_exponential_smoothing linear_regression
        promql.kernels.steps: newest_samples select_window window_sizes
        promql.kernels.windows: first_equal
        tsdb.head.reading: measure_series
        tsdb.head.sample_log: sort_log
        tsdb.index.interning: check_labels intern_series shard_filter
        wire.query_json: _join_labels _tell_kinds _write_points _write_steps
    """,
    "database": """
        promql.kernels.start_timestamps: find_restarts instant_rate_from_starts rate_from_starts resets_from_starts
        promql.kernels.windows: copy_unequal
        tsdb.block.verify: first_not_ascending first_unordered_series first_wrong_postings
        tsdb.exemplars: append_exemplars copy_sections
        tsdb.head.closed_chunks: link_chunks mark_late oldest_time relink_chunks relink_ends
        tsdb.head.reading: read_series
        tsdb.head.sample_log: sort_runs
        tsdb.head.start_timestamps: link_changes note_changes starts_of_samples
        tsdb.head.zero_samples: mark_zeros
        tsdb.index.columns: collect_pairs fill_codes mark_names
        tsdb.index.compaction: chain_pairs copy_rows copy_strings
        tsdb.index.interning: drop_series find_pairs find_symbol gather_strings rebuild_pair_table
            rebuild_series_table rebuild_symbol_table
        tsdb.index.postings: begin_with count_postings fill_postings filter_rows walk_pairs
        tsdb.index.tokens: _tokens
    """,
    "chunks": """
        tsdb.block.tombstones: remove_deleted
        tsdb.chunks.xor: _encode
        tsdb.chunks.xor2: decode_xor2 encode_xor2
        tsdb.merge: merge_groups
    """,
    "otlp": """
        wire.otlp.exponential: read_exponential
        wire.otlp.points: find_attributes measure read_points
    """,
    "histograms": """
        wire.remote_write_histograms: find_messages read_histogram_messages
    """,
}
"""Workload (a function of workloads.py) to `module: kernel ...`, the largest call of which is made there."""


def _parsed(text: str) -> list[str]:
    found = []
    module = ""
    for word in text.split():
        if word.endswith(":"):
            module = word[:-1]
        else:
            found.append(f"{module}.{word}")
    return found


KERNELS: dict[str, str] = {name: workload for workload, text in _REACHED.items() for name in _parsed(text)}
"""Kernel, by its name below the package, to workload."""
