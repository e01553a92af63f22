"""The functions that every template has. `and` and `or` are in execution.py: they stop at the argument that decides.

Upstream: text/template/funcs.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote_plus

from .errors import FunctionError
from .formatting import go_text, printable, sprint, sprintf, sprintln
from .values import ANY, REFLECT, Function, Object, go_type, map_zero, truth


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else ""


def _incompatible(left: object, right: object) -> FunctionError:
    return FunctionError(f"incompatible types for comparison: {go_type(left)} and {go_type(right)}")


def _eq(first: object, *others: object) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        if first is None or other is None:
            if first is other:
                return True
            continue
        if _kind(first) != _kind(other):
            raise _incompatible(first, other)
        if not _kind(first):
            for one in (first, other):
                if not isinstance(one, Object):
                    raise FunctionError(f"non-comparable type {go_text(one)}: {go_type(one)}")
        if first is other if isinstance(first, Object) else first == other:
            return True
    return False


def _lt(left: object, right: object) -> bool:
    for one in (left, right):
        if not _kind(one):
            raise FunctionError("invalid type for comparison")
    if _kind(left) != _kind(right):
        raise _incompatible(left, right)
    if isinstance(left, bool):
        raise FunctionError("invalid type for comparison")
    if isinstance(left, str):
        # Strings compare by their bytes.
        return left.encode("utf-8", "surrogateescape") < str(right).encode("utf-8", "surrogateescape")
    return left < right  # type: ignore[operator]


def _le(left: object, right: object) -> bool:
    return _lt(left, right) or _eq(left, right)


def _number(index: object, length: int) -> int:
    if index is None:
        raise FunctionError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise FunctionError(f"cannot index slice/array with type {go_type(index)}")
    if not 0 <= index <= length:
        raise FunctionError(f"index out of range: {index}")
    return index


def _index(item: object, *indexes: object) -> object:
    if item is None:
        raise FunctionError("index of untyped nil")
    for index in indexes:
        if isinstance(item, str):
            data = item.encode("utf-8", "surrogateescape")
            at = _number(index, len(data))
            if at == len(data):
                raise FunctionError("reflect: string index out of range")
            item = data[at]
        elif isinstance(item, Mapping):
            if index is not None and not isinstance(index, str):
                raise FunctionError(f"value has type {go_type(index)}; should be string")
            if index is None:
                raise FunctionError("value is nil; should be of type string")
            item = item.get(index, map_zero(item))
        elif isinstance(item, Sequence):
            at = _number(index, len(item))
            if at == len(item):
                raise FunctionError("reflect: slice index out of range")
            item = item[at]
        elif item is None:
            raise FunctionError("index of nil pointer")
        else:
            raise FunctionError(f"can't index item of type {go_type(item)}")
    return item


def _slice(item: object, *indexes: object) -> object:
    if item is None:
        raise FunctionError("slice of untyped nil")
    if len(indexes) > 3:
        raise FunctionError(f"too many slice indexes: {len(indexes)}")
    if not isinstance(item, str | Sequence) or isinstance(item, Mapping):
        raise FunctionError(f"can't slice item of type {go_type(item)}")
    if isinstance(item, str) and len(indexes) == 3:
        raise FunctionError("cannot 3-index slice a string")
    data = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
    numbers = [_number(index, len(data)) for index in indexes]
    start, end = [*numbers, *(0, len(data))[len(numbers) :]][:2]
    for left, right in zip([start, *numbers[1:]], [end, *numbers[2:]], strict=False):
        if left > right:
            raise FunctionError(f"invalid slice index: {left} > {right}")
    part = data[start:end]
    if isinstance(part, bytes):
        return part.decode("utf-8", "surrogateescape")
    return part if isinstance(part, type(item)) else type(item)(part)  # type: ignore[call-arg]


def _len(item: object) -> int:
    if item is None:
        raise FunctionError("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogateescape"))
    if isinstance(item, Mapping | Sequence):
        return len(item)
    raise FunctionError(f"len of type {go_type(item)}")


def _call(function: object, *args: object) -> object:
    assert isinstance(function, Function)  # execution.py has looked at it
    fixed = len(function.parameters)
    if function.variadic is not None and len(args) < fixed:
        raise FunctionError(f"wrong number of args: got {len(args)} want at least {fixed}")
    if function.variadic is None and len(args) != fixed:
        raise FunctionError(f"wrong number of args: got {len(args)} want {fixed}")
    for at, arg in enumerate(args):
        wanted = function.parameter(at)
        if wanted not in (ANY, REFLECT) and go_type(arg) != wanted:
            raise FunctionError(f"arg {at}: value has type {go_type(arg)}; should be {wanted}")
    return function.call(*args)


_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def html_escape(text: str) -> str:
    return text.translate(_HTML)


def js_escape(text: str) -> str:
    out = []
    for char in text:
        if char in _JS:
            out.append(_JS[char])
        elif char < " " or not (char.isascii() or char.isprintable()):
            out.append(f"\\u{ord(char):04X}")
        else:
            out.append(char)
    return "".join(out)


def query_escape(text: str) -> str:
    """As Go's url.QueryEscape."""
    return quote_plus(text.encode("utf-8", "surrogateescape"), safe="~")


def _text(args: tuple[object, ...]) -> str:
    return sprint([printable(arg) for arg in args])


BUILTINS: Mapping[str, Function] = {
    "and": Function(lambda *args: args[-1], (REFLECT,), REFLECT),
    "call": Function(_call, (REFLECT,), REFLECT),
    "eq": Function(_eq, (REFLECT,), REFLECT),
    "ge": Function(lambda left, right: not _lt(left, right), (REFLECT, REFLECT)),
    "gt": Function(lambda left, right: not _le(left, right), (REFLECT, REFLECT)),
    "html": Function(lambda *args: html_escape(_text(args)), (), ANY),
    "index": Function(_index, (REFLECT,), REFLECT),
    "js": Function(lambda *args: js_escape(_text(args)), (), ANY),
    "le": Function(_le, (REFLECT, REFLECT)),
    "len": Function(_len, (REFLECT,)),
    "lt": Function(_lt, (REFLECT, REFLECT)),
    "ne": Function(lambda left, right: not _eq(left, right), (REFLECT, REFLECT)),
    "not": Function(lambda value: not truth(value), (REFLECT,)),
    "or": Function(lambda *args: args[-1], (REFLECT,), REFLECT),
    "print": Function(lambda *args: sprint(args), (), ANY),
    "printf": Function(lambda form, *args: sprintf(form, args), ("string",), ANY),
    "println": Function(lambda *args: sprintln(args), (), ANY),
    "slice": Function(_slice, (REFLECT,), REFLECT),
    "urlquery": Function(lambda *args: query_escape(_text(args)), (), ANY),
}
