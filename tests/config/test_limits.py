"""Limits of tenants and the runtime configuration."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from mimir_ray.config import tree
from mimir_ray.config.limits import Limits
from mimir_ray.config.loader import ConfigError, flags_of, load
from mimir_ray.config.overrides import (
    Overrides,
    RuntimeConfig,
    RuntimeConfigSettings,
    RuntimeDefaults,
    parse,
    user_limits,
)
from mimir_ray.config.setting import walk
from mimir_ray.config.units import duration

DEFAULTS = RuntimeDefaults(limits=Limits(ingestion_rate=7.0))


class Files(dict[str, str]):
    def read(self, path: str) -> str:
        if path not in self:
            raise FileNotFoundError(2, "No such file or directory")
        return self[path]


def runtime(files: Files, registry: CollectorRegistry | None = None) -> RuntimeConfig:
    settings = RuntimeConfigSettings(file=tuple(files))
    return RuntimeConfig(settings, DEFAULTS, registry or CollectorRegistry(), files.read)


def test_the_defaults_of_all_limits_are_valid() -> None:
    assert tree.check(Limits()) == []


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("-distributor.ingestion-rate-limit=5", "ingestion_rate", 5.0),
        ("-validation.max-length-label-name=5", "max_label_name_length", 5),
        ("-validation.create-grace-period=1h", "creation_grace_period", duration("1h")),
        ("-store.max-labels-query-length=1d", "max_labels_query_length", duration("1d")),
        ("-distributor.ha-tracker.enable-for-all-users", "accept_ha_samples", True),
        ("-compactor.blocks-retention-period=1y", "compactor_blocks_retention_period", duration("1y")),
    ],
)
def test_limits_have_mimirs_flags(flag: str, name: str, value: object) -> None:
    assert getattr(load(Limits(), [flag]).settings, name) == value


def test_limits_without_a_flag_in_mimir_have_none() -> None:
    assert not [flag for flag in flags_of(Limits()) if "relabel-configs" in flag or "blocked" in flag]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ingestion_burst_factor: 0.5", "ingestion_burst_factor"),
        ("ha_tracker_failover_timeout: 20s", "ha_tracker_failover_timeout"),
        ("otel_translation_strategy: NoTranslation", "otel_translation_strategy"),
        ("otel_translation_strategy: UnderscoreEscapingWithSuffixes", "otel_translation_strategy"),
        (
            "{name_validation_scheme: utf8, otel_translation_strategy: UnderscoreEscapingWithoutSuffixes}",
            "otel_translation_strategy",
        ),
        (
            "{name_validation_scheme: utf8, otel_translation_strategy: NoUTF8EscapingWithSuffixes}",
            "otel_translation_strategy",
        ),
        (
            "{label_value_length_over_limit_strategy: drop, max_label_value_length: 70}",
            "label_value_length_over_limit_strategy",
        ),
        ("max_global_series_per_user: -1", "max_global_series_per_user"),
        ("metric_relabel_configs: [{action: hashmod, target_label: x}]", "metric_relabel_configs[0]"),
        ("metric_relabel_configs: [{action: replace}]", "metric_relabel_configs[0]"),
        ("metric_relabel_configs: [{action: explode}]", "metric_relabel_configs[0].action"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(text: str, path: str) -> None:
    _, problems = tree.build(Limits(), yaml.safe_load(text))
    assert [where for where, _ in problems] == [path]


@pytest.mark.parametrize(
    ("strategy", "scheme", "suffixes"),
    [
        ("UnderscoreEscapingWithSuffixes", "legacy", True),
        ("UnderscoreEscapingWithoutSuffixes", "legacy", False),
        ("NoUTF8EscapingWithSuffixes", "utf8", True),
        ("NoTranslation", "utf8", False),
    ],
)
def test_a_strategy_of_translation_may_say_again_what_other_limits_say(
    strategy: str, scheme: str, suffixes: bool
) -> None:
    text = (
        f"{{otel_translation_strategy: {strategy}, name_validation_scheme: {scheme}, "
        f"otel_metric_suffixes_enabled: {str(suffixes).lower()}}}"
    )
    _, problems = tree.build(Limits(), yaml.safe_load(text))
    assert not problems


def test_a_tenant_starts_from_the_defaults_of_the_main_configuration() -> None:
    overrides, _ = parse([{"overrides": {"a": {"max_label_name_length": 9}}}], DEFAULTS)
    assert (overrides.limits("a").max_label_name_length, overrides.limits("a").ingestion_rate) == (9, 7.0)
    assert overrides.limits("b") is DEFAULTS.limits


def test_files_are_merged_from_left_to_right_down_to_single_limits() -> None:
    left = {"overrides": {"a": {"ingestion_rate": 1, "ingestion_burst_size": 2}}}
    overrides, _ = parse([left, {"overrides": {"a": {"ingestion_rate": 3}}}], DEFAULTS)
    assert (overrides.limits("a").ingestion_rate, overrides.limits("a").ingestion_burst_size) == (3.0, 2)


def test_limits_of_instances_can_be_changed_while_running() -> None:
    overrides, _ = parse([{"ingester_limits": {"max_series": 5}, "distributor_limits": None}], DEFAULTS)
    assert (overrides.ingester.max_series, overrides.distributor) == (5, DEFAULTS.distributor)


def test_a_tenant_whose_id_is_a_number_in_yaml_is_found_by_its_text() -> None:
    overrides, _ = parse([yaml.safe_load("overrides: {10: {ingestion_rate: 1}}")], DEFAULTS)
    assert overrides.limits("10").ingestion_rate == 1.0


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("overrides: {a: {ingestion_rat: 1}}", "overrides.a.ingestion_rat"),
        ("overrides: {a: 5}", "overrides.a"),
        ("overrides: [a]", "overrides"),
        ("override: {}", "override"),
        ("ingester_limits: {max_tenant: 1}", "ingester_limits.max_tenant"),
    ],
)
def test_mistakes_in_the_runtime_configuration_name_their_path(text: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([yaml.safe_load(text)], DEFAULTS)
    assert [where for where, _ in caught.value.problems] == [path]


def test_what_has_no_effect_in_the_runtime_configuration_is_a_warning() -> None:
    _, warnings = parse([{"multi_kv_config": {"primary": "x"}}], DEFAULTS)
    assert warnings == ["runtime setting multi_kv_config has no effect"]


def test_without_a_file_all_tenants_have_the_defaults_and_no_metric_is_there() -> None:
    registry = CollectorRegistry()
    config = RuntimeConfig(RuntimeConfigSettings(), DEFAULTS, registry)
    assert not config.reload(0)
    assert config.limits("a") is DEFAULTS.limits
    assert generate_latest(registry) == b""


@pytest.mark.parametrize("text", ["overrides: {a: {x: 1}}", "{", "- a"])
def test_a_bad_file_at_the_start_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        runtime(Files(a=text))


def test_a_changed_file_is_in_force_after_a_reload() -> None:
    files = Files(a="overrides: {t: {ingestion_rate: 1}}")
    config = runtime(files)
    files["a"] = "overrides: {t: {ingestion_rate: 2}}"
    assert config.reload(0)
    assert config.limits("t").ingestion_rate == 2.0


def test_an_unchanged_file_keeps_the_very_same_state() -> None:
    config = runtime(Files(a="overrides: {t: {ingestion_rate: 1}}"))
    before = config.current
    assert not config.reload(0)
    assert config.current is before


def test_files_are_looked_at_once_in_a_period() -> None:
    files = Files(a="")
    config = runtime(files)
    config.reload(1_000)
    files["a"] = "overrides: {t: {ingestion_rate: 2}}"
    assert not config.reload(10_999)
    assert config.reload(11_000)


@pytest.mark.parametrize("bad", ["overrides: {t: {x: 1}}", "{", None])
def test_a_bad_file_later_keeps_the_state_and_shows_in_the_metrics(bad: str | None) -> None:
    files, registry = Files(a="overrides: {t: {ingestion_rate: 1}}"), CollectorRegistry()
    config = runtime(files, registry)
    before = config.current
    assert registry.get_sample_value("cortex_runtime_config_last_reload_successful") == 1
    if bad is None:
        del files["a"]
    else:
        files["a"] = bad
    assert not config.reload(0)
    assert config.current is before
    assert registry.get_sample_value("cortex_runtime_config_last_reload_successful") == 0
    files["a"] = "overrides: {t: {ingestion_rate: 3}}"
    assert config.reload(10_000)
    assert registry.get_sample_value("cortex_runtime_config_last_reload_successful") == 1


def test_the_hash_metric_has_one_series() -> None:
    files, registry = Files(a=""), CollectorRegistry()
    config = runtime(files, registry)
    files["a"] = "overrides: {t: {}}"
    config.reload(0)
    assert generate_latest(registry).decode().count("cortex_runtime_config_hash{") == 1


def test_the_page_shows_all_limits_of_tenants_and_with_diff_only_what_differs() -> None:
    config = runtime(Files(a="overrides: {t: {max_query_lookback: 7d}}\ningester_limits: {max_series: 4}"))
    assert yaml.safe_load(config.current.page("diff")) == {
        "overrides": {"t": {"max_query_lookback": "1w"}},
        "ingester_limits": {"max_series": 4},
    }
    whole = yaml.safe_load(config.current.page())
    assert whole["overrides"]["t"]["ingestion_rate"] == 7
    assert whole["distributor_limits"]["max_inflight_push_requests"] == 2000


def test_the_page_is_a_runtime_configuration_itself() -> None:
    config = runtime(Files(a="overrides: {t: {max_query_lookback: 7d, blocked_queries: [{pattern: x}]}}"))
    again, _ = parse([yaml.safe_load(config.current.page())], DEFAULTS)
    assert again == config.current


def test_overrides_survive_pickling() -> None:
    overrides = Overrides(DEFAULTS, {"t": Limits(drop_labels=("a",))})
    assert pickle.loads(pickle.dumps(overrides)) == overrides


def test_real_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runtime.yaml"
    path.write_text("overrides: {t: {ingestion_rate: 1}}")
    config = RuntimeConfig(RuntimeConfigSettings(file=(str(path),)), DEFAULTS, CollectorRegistry())
    assert config.limits("t").ingestion_rate == 1.0


def test_user_limits_have_mimirs_keys_and_defaults() -> None:
    shown = user_limits(Limits(compactor_blocks_retention_period=duration("1d")))
    assert len(shown) == 12
    assert shown["compactor_blocks_retention_period_seconds"] == 86400
    assert (shown["ingestion_rate"], shown["ruler_max_rule_groups_per_tenant"]) == (10000, 70)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["5m", "1e400", "10KiB"])
documents = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
names = st.sampled_from([one.path[0] for one in walk(Limits())])


@settings(deadline=None)
@given(st.dictionaries(names, documents | st.just(10**400)))
def test_whatever_a_file_says_gives_limits_or_problems_and_never_another_error(document: dict[str, object]) -> None:
    limits, problems = tree.build(Limits(), document)
    assert isinstance(limits, Limits)
    assert all(path and reason for path, reason in problems)
