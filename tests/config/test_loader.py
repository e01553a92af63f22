"""From a file and a command line to settings."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from mimir_ray.config.loader import ConfigError, Loaded, expand, flags_of, load, merge, read_text
from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration, duration


@dataclass(frozen=True, slots=True)
class Ring:
    replication_factor: int = setting(3, help="Copies.", flag="replication-factor", minimum=1, maximum=9)
    heartbeat: Duration = setting(duration("15s"), help="Period.", flag="heartbeat-period", minimum=1)


@dataclass(frozen=True, slots=True)
class Rule:
    name: str = setting("", help="Name.")
    weight: float = setting(1.0, help="Weight.", minimum=0)

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.name:
            yield "name", "must not be empty"


@dataclass(frozen=True, slots=True)
class Ingester:
    ring: Ring = block(Ring(replication_factor=1), prefix="ingester.ring.")
    path: str = setting("./data", help="Where.", yaml="dir")


@dataclass(frozen=True, slots=True)
class Tenancy:
    multitenancy_enabled: bool = setting(True, help="On.", flag="auth.multitenancy-enabled")


@dataclass(frozen=True, slots=True)
class Root:
    tenancy: Tenancy = block(Tenancy, inline=True)
    target: tuple[str, ...] = setting(("all",), help="Roles.", flag="target")
    mode: Literal["a", "b"] = setting("a", help="Mode.", flag="mode")
    port: int = setting(8080, help="Port.", flag="port", maximum=65535)
    rate: float = setting(1.5, help="Rate.", flag="rate")
    body: Bytes = setting(Bytes(100), help="Size.", flag="body")
    password: str = setting("", help="Secret.", flag="password", secret=True)
    sizes: dict[str, int] = setting({}, help="Map.", flag="sizes")
    rules: tuple[Rule, ...] = setting((), help="List of maps.", flag="")
    maybe: int | None = setting(None, help="Optional.", flag="maybe")
    ingester: Ingester = block(Ingester)
    store_gateway: Ring = block(Ring, prefix="store-gateway.ring.")

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.port and self.port == self.body:
            yield "", "port and body must differ"


def read(text: str, *arguments: str, **environment: str) -> Loaded[Root]:
    return load(Root(), ["-config.file=x.yaml", *arguments], environment, {"x.yaml": text}.__getitem__)


def problems(text: str, *arguments: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(text, *arguments)
    return dict(caught.value.problems)


def test_without_file_and_flags_everything_has_its_default() -> None:
    assert load(Root(), []).settings == Root()


def test_a_file_sets_nested_blocks_inlined_keys_and_renamed_keys() -> None:
    settings = read(
        "multitenancy_enabled: false\ningester: {dir: /x, ring: {replication_factor: 3}}\ntarget: [read, write]"
    ).settings
    assert not settings.tenancy.multitenancy_enabled
    assert (settings.ingester.path, settings.ingester.ring.replication_factor) == ("/x", 3)
    assert settings.target == ("read", "write")


def test_a_block_declared_with_its_own_defaults_keeps_those_that_the_file_leaves_out() -> None:
    settings = read("ingester: {ring: {heartbeat: 1m}}\nstore_gateway:").settings
    assert settings.ingester.ring == Ring(1, duration("1m"))
    assert settings.store_gateway == Ring()


def test_a_flag_wins_over_the_file() -> None:
    assert read("port: 1", "-port=2").settings.port == 2


def test_a_flag_can_mend_a_value_of_the_file_that_is_out_of_bounds() -> None:
    assert read("port: 70000", "-port=2").settings.port == 2


@pytest.mark.parametrize("spelling", [["-port=9"], ["--port=9"], ["-port", "9"], ["--port", "9"]])
def test_flags_take_one_dash_or_two_and_a_value_behind_either_sign(spelling: list[str]) -> None:
    assert load(Root(), spelling).settings.port == 9


def test_a_boolean_flag_stands_alone_and_never_takes_the_next_word() -> None:
    off = load(Root(), ["-auth.multitenancy-enabled=false", "-port", "1"]).settings
    on = load(off, ["--auth.multitenancy-enabled", "-port", "2"]).settings
    assert (off.tenancy.multitenancy_enabled, on.tenancy.multitenancy_enabled, on.port) == (False, True, 2)


def test_the_last_of_equal_flags_wins_but_lists_add_up() -> None:
    settings = load(Root(), ["-port=1", "-port=2", "-target=a,b", "-target=c"]).settings
    assert (settings.port, settings.target) == (2, ("a", "b", "c"))


def test_a_negative_number_may_follow_its_flag() -> None:
    assert load(Root(), ["-rate", "-2.5"]).settings.rate == -2.5


def test_a_block_in_two_places_has_two_flags() -> None:
    settings = load(Root(), ["-ingester.ring.heartbeat-period=5s", "-store-gateway.ring.heartbeat-period=6s"]).settings
    assert (settings.ingester.ring.heartbeat.seconds, settings.store_gateway.heartbeat.seconds) == (5, 6)


def test_a_setting_without_a_flag_of_its_own_has_one_from_its_path() -> None:
    assert "ingester.dir" in flags_of(Root())


def test_maps_are_json_behind_a_flag() -> None:
    assert load(Root(), ['-sizes={"a": 1}']).settings.sizes == {"a": 1}


def test_lists_may_be_one_text_with_commas_in_the_file() -> None:
    assert read("target: read,write").settings.target == ("read", "write")


def test_lists_of_maps_are_checked_with_their_place() -> None:
    assert read("rules: [{name: a, weight: 2}]").settings.rules == (Rule("a", 2.0),)
    found = problems("rules: [{name: a}, {weight: 1}]")
    assert found == {"rules[1].name": "must not be empty"}


def test_unknown_keys_name_their_path_and_what_may_be_meant() -> None:
    found = problems("ingester: {ring: {replication_facto: 3}}\nnonsense: 1")
    assert found["ingester.ring.replication_facto"] == "unknown setting, did you mean 'replication_factor'?"
    assert found["nonsense"] == "unknown setting"


def test_an_unknown_flag_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="-prot: unknown flag, did you mean 'port'"):
        load(Root(), ["-prot=1"])


@pytest.mark.parametrize("arguments", [["stray"], ["-port"], ["---port=1"], ["-port=x"], ["-help=maybe"], ["--"]])
def test_a_command_line_that_cannot_be_read_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        load(Root(), arguments)


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("port: abc", "port", "expected integer, got 'abc'"),
        ("port: 1.5", "port", "expected integer, got 1.5"),
        ("port: true", "port", "expected integer, got True"),
        ("port: {a: 1}", "port", "expected integer, got a map"),
        ("port:", "port", "expected integer, got nothing"),
        ("port: 70000", "port", "must be at most 65535, got 70000"),
        ("rate: .nan", "rate", "must be a number, got NaN"),
        ("mode: c", "mode", 'expected "a" or "b", got \'c\''),
        ("multitenancy_enabled: 1", "multitenancy_enabled", "expected boolean, got 1"),
        ("sizes: {a: x}", "sizes.a", "expected integer, got 'x'"),
        ("sizes: [1]", "sizes", "expected map of string to integer, got a list"),
        ("target: {a: 1}", "target", "expected list of string, got a map"),
        ("rules: x", "rules", "expected list of map, got 'x'"),
        ("ingester: 5", "ingester", "expected a map of settings, got 5"),
        ("ingester: {ring: {heartbeat: 5q}}", "ingester.ring.heartbeat", "not a valid duration: '5q'"),
        ("ingester: {ring: {heartbeat: 0}}", "ingester.ring.heartbeat", "must be at least 1ms, got 0s"),
        ("body: 5XB", "body", "not a valid size"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_path_and_expected_type(text: str, path: str, reason: str) -> None:
    assert problems(text)[path].startswith(reason)


def test_all_problems_are_reported_at_once() -> None:
    found = problems("port: abc\nmode: c\nnonsense: 1\nbody: 1\nrules: [{}]")
    assert set(found) == {"port", "mode", "nonsense", "rules[0].name"}


def test_what_a_class_finds_wrong_with_its_fields_is_a_problem() -> None:
    assert problems("port: 100") == {"": "port and body must differ"}


def test_numbers_that_yaml_leaves_as_text_are_numbers() -> None:
    settings = read("port: 1e3\nrate: 1e5").settings
    assert (settings.port, settings.rate) == (1000, 100000.0)


def test_an_optional_setting_may_be_null() -> None:
    assert (read("maybe: null").settings.maybe, read("maybe: 3").settings.maybe) == (None, 3)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("memberlist: {join_members: [a]}", "memberlist"),
        ("ingester: {ring: {kvstore: {store: memberlist}}}", "ingester.ring.kvstore"),
        ("usage_stats: {enabled: false}", "usage_stats"),
        ("ingester: {grpc_client_config: {}}", "ingester.grpc_client_config"),
        ("distributor: {ring: {kvstore: {store: memberlist}}}", "distributor.ring.kvstore"),
        ("ingester: {ring: {instance_addr: 127.0.0.1}}", "ingester.ring.instance_addr"),
    ],
)
def test_what_only_mimirs_process_needs_is_passed_over_with_a_warning(text: str, path: str) -> None:
    (warning,) = read(text).warnings
    assert warning.startswith(f"setting {path} has no effect: ")


def test_a_block_that_we_lack_is_an_error_unless_all_of_it_is_passed_over() -> None:
    assert "distributor" in problems("distributor: {ring: {kvstore: {}}, pool: 1}")
    assert "distributor" in problems("distributor: {}")


def test_flags_that_only_mimirs_process_needs_are_passed_over_with_their_values() -> None:
    loaded = load(
        Root(), ["-memberlist.join", "a", "-ingester.ring.store=consul", "-server.grpc-listen-port=1", "-port=2"]
    )
    assert (loaded.settings.port, len(loaded.warnings)) == (2, 3)


def test_requests_like_help_are_told_apart_from_settings() -> None:
    assert load(Root(), ["-help", "-print.config", "-version=false"]).requests == {"help", "print.config"}


def test_variables_are_expanded_only_when_asked_for() -> None:
    assert read("port: ${P}", "-config.expand-env", P="7").settings.port == 7
    assert "port" in problems("port: ${P}")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("${A}", "1"), ("${B:x}", "x"), ("${B}", ""), ("${A:x}", "1"), ("$A $1 ${1}", "$A $1 "), ("${B:a:b}", "a:b")],
)
def test_a_variable_gives_its_value_or_its_default_or_nothing(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_several_files_are_merged_from_left_to_right() -> None:
    files = {"a": "port: 1\ningester: {dir: /a}", "b": "ingester: {ring: {replication_factor: 2}}\nport: 2"}
    settings = load(Root(), ["-config.file=a,b"], read=files.__getitem__).settings
    assert (settings.port, settings.ingester.path, settings.ingester.ring.replication_factor) == (2, "/a", 2)


def test_merging_replaces_lists_and_keeps_what_null_stands_over() -> None:
    below: dict[str, Any] = {"a": [1], "b": {"c": 1}}
    assert merge(below, {"a": [2], "b": None, "d": 3}) == {"a": [2], "b": {"c": 1}, "d": 3}


def test_a_key_that_is_set_twice_is_an_error_with_its_line() -> None:
    assert "line 2" in problems("port: 1\nport: 2")[""]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\t:",
        "{",
        "- a\n- b",
        "just text",
        "!!python/object:os.system x",
        "port: " + "9" * 5000,
        "a: 2020-99-99",
        "[" * 9999,
    ],
)
def test_what_is_no_map_of_settings_in_yaml_is_an_error(text: str) -> None:
    assert problems(text)


def test_an_empty_file_is_a_file_without_settings() -> None:
    assert read("").settings == read("# nothing\n").settings == Root()


def test_a_missing_file_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere\.yaml: cannot read the configuration file: No such file"):
        load(Root(), ["-config.file=/nowhere.yaml"])


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"port: 3"))
    assert read_text(str(tmp_path / "x.gz")) == "port: 3"


def test_settings_and_their_errors_survive_pickling() -> None:
    settings = read("sizes: {a: 1}\nrules: [{name: x}]").settings
    assert pickle.loads(pickle.dumps(settings)) == settings
    error = ConfigError((("a", "b"),), "x")
    assert str(pickle.loads(pickle.dumps(error))) == "x: a: b"


def test_instances_do_not_share_their_maps() -> None:
    assert Root().sizes is not Root().sizes
