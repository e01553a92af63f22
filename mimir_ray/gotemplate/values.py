"""What templates work on: Python values that stand for Go's, and what Go would say of their types.

| Python | Go |
|---|---|
| None | nil (as the result of a missing key: no value) |
| bool, int, float, str | bool, int, float64, string |
| `StringMap`, other dict | map[string]string, map[string]interface {} |
| `Slice`, other list or tuple | a typed slice, []interface {} |
| `Object` | a struct, or a pointer to one, with the fields and methods that its class names |
| `Function` | a function |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

ANY = "interface {}"
REFLECT = "reflect.Value"
"""A parameter that takes whatever comes, nil too."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that templates may call.

    `parameters`: Go types of the fixed ones; `variadic`: of the rest, None if there is none. `call` gets plain values
    and raises `FunctionError`.
    """

    call: Callable[..., Any]
    parameters: tuple[str, ...] = ()
    variadic: str | None = None

    def parameter(self, index: int) -> str:
        if index < len(self.parameters):
            return self.parameters[index]
        assert self.variadic is not None
        return self.variadic


class StringMap(dict[str, str]):
    """map[string]string, or a named type over it that has methods."""

    go_type: ClassVar[str] = "map[string]string"
    methods: ClassVar[Mapping[str, Function]] = {}


class Slice(list[Any]):
    """A slice that knows its type."""

    go_type: ClassVar[str] = "[]interface {}"
    methods: ClassVar[Mapping[str, Function]] = {}


class NamedInt(int):
    """An int of a type that says its name: a month, a day of the week."""

    go_type: str
    text: str

    def __new__(cls, value: int, go_type: str, text: str) -> NamedInt:
        made = super().__new__(cls, value)
        made.go_type, made.text = go_type, text
        return made


class Object:
    """A struct. Subclasses say what of them templates see; methods get the object first.

    `go_string`: what `String()` gives, or None where the type has no such method.
    """

    go_type: ClassVar[str] = "struct {}"
    fields: ClassVar[tuple[str, ...]] = ()
    interfaces: ClassVar[frozenset[str]] = frozenset()
    """Fields that are declared as interface {}."""
    methods: ClassVar[Mapping[str, Function]] = {}

    def go_string(self) -> str | None:
        return None

    @property
    def is_pointer(self) -> bool:
        return self.go_type.startswith("*")


def go_type(value: object) -> str:
    """The name of the type, as %T writes it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return value.go_type if isinstance(value, NamedInt) else "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Function):
        return "func"
    found = getattr(value, "go_type", None)
    if isinstance(found, str):
        return found
    return "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}"


def static_type(receiver: object, name: str) -> str:
    """The declared type of a field or element, where that is an interface; else empty."""
    if isinstance(receiver, Object):
        return ANY if name in receiver.interfaces else ""
    return ANY if isinstance(receiver, Mapping) and not isinstance(receiver, StringMap) else ""


def truth(value: object) -> bool:
    """Whether it is not the zero of its type. Upstream: text/template IsTrue."""
    if isinstance(value, Object):
        return True
    if isinstance(value, str | Mapping | Sequence):
        return len(value) > 0
    return bool(value)


def map_zero(value: Mapping[str, Any]) -> object:
    """What stands where a key is missing."""
    return "" if isinstance(value, StringMap) else None


def method(value: object, name: str) -> Function | None:
    """The method of that name, with its receiver bound."""
    methods = getattr(value, "methods", None)
    found = methods.get(name) if isinstance(methods, Mapping) and not isinstance(value, Function) else None
    if not isinstance(found, Function):
        return None
    call = found.call
    return Function(lambda *args: call(value, *args), found.parameters, found.variadic)
