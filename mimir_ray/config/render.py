"""Settings as YAML for people: what is in force, what differs from the defaults, the defaults.

Behind `/config`, `/config?mode=diff`, `/config?mode=defaults`, `/runtime_config` and `-print.config`.
"""

from __future__ import annotations

from typing import Any

import yaml

from mimir_ray.config import values
from mimir_ray.config.setting import fields_of, yaml_name

MASK = "********"


def tree(settings: Any) -> dict[str, Any]:
    """All settings as plain YAML data in order of declaration; secrets that are set show as `********`."""
    found: dict[str, Any] = {}
    for field, declaration, _ in fields_of(type(settings)):
        value, name = getattr(settings, field.name), yaml_name(field, declaration)
        if declaration.is_block and declaration.inline:
            found.update(tree(value))
        elif declaration.is_block:
            found[name] = tree(value)
        else:
            found[name] = MASK if declaration.secret and value else values.to_yaml(value)
    return found


def difference(settings: Any, default: Any) -> dict[str, Any]:
    """`tree` of what differs between two instances of one class; blocks without a difference are left out."""
    found: dict[str, Any] = {}
    for field, declaration, _ in fields_of(type(settings)):
        ours, theirs = getattr(settings, field.name), getattr(default, field.name)
        if ours == theirs:
            continue
        name = yaml_name(field, declaration)
        if declaration.is_block:
            inside = difference(ours, theirs)
            if declaration.inline:
                found.update(inside)
            elif inside:
                found[name] = inside
        else:
            found[name] = MASK if declaration.secret and ours else values.to_yaml(ours)
    return found


def config_page(settings: Any, default: Any, mode: str = "") -> str:
    """The body of `/config`. An unknown mode gives everything, as in Mimir."""
    if mode == "diff":
        return dump(difference(settings, default))
    return dump(tree(default if mode == "defaults" else settings))


def dump(data: Any) -> str:
    """YAML in the order of the data. ASCII: PyYAML would write some line breaks of Unicode as they are."""
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=False, width=1000)
    return text
