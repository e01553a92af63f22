"""Settings as people see them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config import tree
from mimir_ray.config.limits import Limits
from mimir_ray.config.reference import help_text, page
from mimir_ray.config.render import config_page, difference
from mimir_ray.config.server import ApiConfig, ServerConfig, TenancyConfig
from mimir_ray.config.setting import block, setting, walk
from mimir_ray.config.units import Bytes, Duration, duration


@dataclass(frozen=True, slots=True)
class Store:
    key: str = setting("", help="The key | of the store.", flag="key", secret=True)
    timeout: Duration = setting(duration("90s"), help="Time.", flag="timeout", category="advanced")
    size: Bytes = setting(Bytes(5), help="Size.", flag="size", unit="bytes")


@dataclass(frozen=True, slots=True)
class Root:
    tenancy: TenancyConfig = block(TenancyConfig, inline=True)
    server: ServerConfig = block(ServerConfig, help="Where to listen.")
    a: Store = block(Store, prefix="a.")
    b: Store = block(Store(timeout=duration("1s")), prefix="b.")
    limits: Limits = block(Limits)


def test_all_settings_render_in_order_of_declaration_with_inlined_keys_on_top() -> None:
    shown = yaml.safe_load(config_page(Root(), Root()))
    assert list(shown) == ["multitenancy_enabled", "no_auth_tenant", "server", "a", "b", "limits"]
    assert shown["b"] == {"key": "", "timeout": "1s", "size": 5}


def test_a_secret_that_is_set_is_masked_in_every_mode() -> None:
    settings = replace(Root(), a=Store(key="hunter2"))
    for mode in ("", "diff"):
        text = config_page(settings, Root(), mode)
        assert yaml.safe_load(text)["a"]["key"] == "********"
        assert "hunter2" not in text


def test_the_difference_has_only_what_differs() -> None:
    settings = replace(Root(), b=Store(), tenancy=TenancyConfig(multitenancy_enabled=False))
    assert yaml.safe_load(config_page(settings, Root(), "diff")) == {
        "multitenancy_enabled": False,
        "b": {"timeout": "1m30s"},
    }
    assert difference(Root(), Root()) == {}


def test_the_mode_defaults_shows_the_defaults_and_an_unknown_mode_everything() -> None:
    settings = replace(Root(), a=Store(size=Bytes(9)))
    assert config_page(settings, Root(), "defaults") == config_page(Root(), Root())
    assert config_page(settings, Root(), "sideways") == config_page(settings, Root())


def test_what_is_rendered_is_read_back_as_the_same_settings() -> None:
    settings = replace(Root(), a=Store(timeout=duration("36h")), limits=Limits(drop_labels=("x",), request_rate=0.5))
    again, problems = tree.build(Root(), yaml.safe_load(config_page(settings, Root())))
    assert (again, problems) == (settings, [])


@settings(deadline=None)
@given(
    st.builds(
        Limits,
        ingestion_rate=st.floats(0, 1e12),
        max_query_lookback=st.integers(0, 10**12).map(Duration),
        drop_labels=st.lists(st.text(min_size=1)).map(tuple),
        active_series_custom_trackers=st.dictionaries(st.text(), st.text()),
        max_fetched_chunk_bytes_per_query=st.integers(0, 2**60).map(Bytes),
    )
)
def test_any_limits_survive_being_rendered_and_read(limits: Limits) -> None:
    again, problems = tree.build(Limits(), yaml.safe_load(config_page(limits, Limits())))
    assert (again, problems) == (limits, [])


def test_the_reference_page_has_a_row_for_every_setting() -> None:
    text = page(Root())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(list(walk(Root())))
    assert "## `server`\n\nWhere to listen.\n" in text
    assert "| `key` | `-a.key` | string |  | (secret) The key \\| of the store. |" in rows
    assert "| `timeout` | `-b.timeout` | duration | `1s` | (advanced) Time. |" in rows


def test_help_shows_basic_flags_and_help_all_every_flag() -> None:
    basic, everything = help_text(Root()), help_text(Root(), everything=True)
    assert "  -a.size size\n    \tSize. (default 5)\n" in basic
    assert "-a.timeout" not in basic
    assert "  -a.timeout duration\n    \t[advanced] Time. (default 1m30s)\n" in everything


def test_every_setting_of_the_process_says_what_it_means() -> None:
    assert all(one.declaration.help.endswith(".") for one in walk(Root()) if one.path[0] != "a")


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Root().a.key = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        (ServerConfig(http_path_prefix="x/"), "http_path_prefix"),
        (ServerConfig(http_listen_port=70000), "http_listen_port"),
        (ApiConfig(prometheus_http_prefix="/a/"), "prometheus_http_prefix"),
        (TenancyConfig(no_auth_tenant="a|b"), "no_auth_tenant"),
    ],
)
def test_settings_of_the_process_are_checked(settings: object, path: str) -> None:
    assert [where for where, _ in tree.check(settings)] == [path]


def test_half_a_tls_pair_is_refused() -> None:
    _, problems = tree.build(ServerConfig(), {"http_tls_config": {"cert_file": "x"}})
    assert problems == [("http_tls_config", "cert_file and key_file are needed together")]
