"""How a setting is declared: a field of a frozen, slotted dataclass beside the code that it sets.

    @dataclass(frozen=True, slots=True)
    class WalConfig:
        segment_bytes: Bytes = setting(size("128MiB"), flag="blocks-storage.tsdb.wal-segment-size-bytes",
                                       help="A WAL segment is cut at this size.")

    @dataclass(frozen=True, slots=True)
    class TsdbConfig:
        dir: str = setting("./tsdb/", flag="blocks-storage.tsdb.dir", help="Where tenants' heads live.")
        wal: WalConfig = block(WalConfig)

The declaration is all there is: loader.py reads YAML and flags by it, render.py prints the effective
values, reference.py the page of all settings. Types: bool, int, float, str, `Duration`, `Bytes`,
`Literal[...]` of strings, `X | None`, `tuple[X, ...]` (YAML list, or one comma separated text),
`dict[str, X]` (YAML map, JSON as a flag), dataclasses (blocks, also inside lists and maps), and classes
with `from_yaml(value)` / `to_yaml()`.

A class may check what its fields mean together: `def problems(self) -> Iterator[tuple[str, str]]` yields
(YAML name of the field or "", what is wrong with it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

Category = Literal["basic", "advanced", "experimental"]
_KEY = "mimir_ray.setting"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What `setting` or `block` said about a field. `flag`: None = derive from the path, "" = YAML only."""

    help: str = ""
    unit: str = ""
    flag: str | None = None
    yaml: str = ""
    secret: bool = False
    category: Category = "basic"
    minimum: float | None = None
    maximum: float | None = None
    enforced_by: tuple[str, ...] = ()
    is_block: bool = False
    prefix: str = ""
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in the tree below a root class.

    `attributes`: the fields that lead to it; `path`: the YAML keys; `flag`: without dashes, "" if it has
    none; `default`: in the tree it was found in (a block may be declared with defaults of its own).
    """

    attributes: tuple[str, ...]
    path: tuple[str, ...]
    flag: str
    kind: Any
    default: Any
    declaration: Declaration

    @property
    def name(self) -> str:
        return ".".join(self.path)


def setting(
    default: Any,
    *,
    help: str,  # noqa: A002  (reads best at some hundred declarations)
    unit: str = "",
    flag: str | None = None,
    yaml: str = "",
    secret: bool = False,
    category: Category = "basic",
    minimum: float | None = None,
    maximum: float | None = None,
    enforced_by: tuple[str, ...] = (),
) -> Any:
    """A field with a default, its meaning, and how it is spelt outside.

    Args:
        default: of the field's type; a list is kept as a tuple, a dict is copied for every instance.
        help: one or two sentences for the reference page.
        unit: where the type does not tell (`samples`, `bytes/s`).
        flag: Mimir's flag without dashes, after the prefixes of the blocks around; None derives it from
            the YAML path; "" makes the setting YAML only.
        yaml: the YAML key, where it is not the field's name.
        secret: shown as `********`.
        minimum, maximum: what numbers are allowed, ends included.
        enforced_by: of a limit, the modules (below the package) that read it and act on it; none: nothing does yet.
            tests/config/test_enforcement.py compares it to what they read.
    """
    declaration = Declaration(help, unit, flag, yaml, secret, category, minimum, maximum, enforced_by)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata={_KEY: declaration})
    if isinstance(default, list):
        default = tuple(default)
    return dataclasses.field(default=default, metadata={_KEY: declaration})


def block(
    default: Any,
    *,
    help: str = "",  # noqa: A002
    yaml: str = "",
    prefix: str = "",
    inline: bool = False,
    category: Category = "basic",
) -> Any:
    """A nested block.

    Args:
        default: a settings class, or an instance where this place has defaults of its own.
        prefix: put before the flags inside (`ingester.ring.`), for blocks used in several places.
        inline: its keys stand among those of the block around it.
    """
    declaration = Declaration(
        help=help, yaml=yaml, prefix=prefix, inline=inline, category=category, is_block=True, flag=""
    )
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata={_KEY: declaration})
    return dataclasses.field(default_factory=lambda: default, metadata={_KEY: declaration})


_FIELDS: dict[type, tuple[tuple[dataclasses.Field[Any], Declaration, Any], ...]] = {}


def fields_of(kind: type) -> tuple[tuple[dataclasses.Field[Any], Declaration, Any], ...]:
    """The declared fields of a settings class with their resolved types; worked out once."""
    if kind not in _FIELDS:
        hints = get_type_hints(kind)
        _FIELDS[kind] = tuple(
            (field, field.metadata[_KEY], hints[field.name])
            for field in dataclasses.fields(kind)
            if _KEY in field.metadata
        )
    return _FIELDS[kind]


def yaml_name(field: dataclasses.Field[Any], declaration: Declaration) -> str:
    return declaration.yaml or field.name


def walk(
    default: Any, path: tuple[str, ...] = (), attributes: tuple[str, ...] = (), prefix: str = ""
) -> Iterator[Setting]:
    """Every setting below `default` (an instance of a settings class), in order of declaration."""
    for field, declaration, kind in fields_of(type(default)):
        here = yaml_name(field, declaration)
        value = getattr(default, field.name)
        if declaration.is_block:
            inside = path if declaration.inline else (*path, here)
            yield from walk(value, inside, (*attributes, field.name), prefix + declaration.prefix)
            continue
        full = (*path, here)
        flag = declaration.flag
        if flag is None:
            flag = (prefix + here if prefix else ".".join(full)).replace("_", "-")
        elif flag:
            flag = prefix + flag
        yield Setting((*attributes, field.name), full, flag, kind, value, declaration)
