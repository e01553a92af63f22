"""Carries a parsed template out on data. Upstream: text/template/exec.go.

Bounded, since templates come from tenants: size of the output, steps (nodes walked, so loops too), depth of templates
that call templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimir_ray.model.matchers import quote

from . import nodes
from .builtins import BUILTINS
from .errors import FunctionError, TemplateExecutionError
from .formatting import go_text, printable
from .values import ANY, REFLECT, Function, Object, go_type, map_zero, method, static_type, truth


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one execution. `output_max` in characters."""

    output_max: int = 1 << 20
    steps_max: int = 1_000_000
    depth_max: int = 50


DEFAULT_LIMITS = Limits()

_MISSING: Any = object()
"""No value comes through the pipeline."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


@dataclass(slots=True)
class _Budget:
    limits: Limits
    out: list[str]
    written: int = 0
    steps: int = 0


class Execution:
    """One run of one template; those that it calls run in their own, on the same budget."""

    def __init__(
        self,
        name: str,
        parse_name: str,
        text: str,
        trees: Mapping[str, nodes.List],
        functions: Mapping[str, Function],
        zero_missing: bool,
        budget: _Budget,
        depth: int = 0,
    ) -> None:
        self.name = name
        self.parse_name = parse_name
        self.text = text
        self.trees = trees
        self.functions = functions
        self.zero_missing = zero_missing
        self.budget = budget
        self.depth = depth
        self.node: nodes.Node | None = None
        self.variables: list[tuple[str, Any]] = []

    def run(self, data: object) -> None:
        self.variables = [("$", data)]
        self.walk(data, self.trees[self.name])

    def failure(self, reason: str) -> TemplateExecutionError:
        """The error at the node that is being evaluated."""
        assert self.node is not None
        before = self.text[: self.node.position].encode("utf-8", "surrogateescape")
        line, column = 1 + before.count(b"\n"), len(before) - (before.rfind(b"\n") + 1)
        return TemplateExecutionError(
            f"template: {self.parse_name}:{line}:{column}: executing {quote(self.name)} at <{self.node}>: {reason}"
        )

    def write(self, text: str) -> None:
        budget = self.budget
        budget.written += len(text)
        if budget.written > budget.limits.output_max:
            raise self.failure(f"exceeded maximum output of {budget.limits.output_max} characters")
        budget.out.append(text)

    def step(self) -> None:
        self.budget.steps += 1
        if self.budget.steps > self.budget.limits.steps_max:
            raise self.failure(f"exceeded maximum of {self.budget.limits.steps_max} steps")

    # Nodes.

    def walk(self, dot: Any, node: nodes.Node) -> None:
        self.node = node
        self.step()
        match node:
            case nodes.Action():
                # Variables that it declares live until the block ends.
                value = self.pipeline(dot, node.pipe)
                if not node.pipe.declares:
                    self.node = node
                    self.write(self.printed(node, value))
            case nodes.List():
                for each in node.nodes:
                    self.walk(dot, each)
            case nodes.Text():
                self.write(node.text)
            case nodes.Branch():
                known = len(self.variables)
                try:
                    if node.kind == "range":
                        self.range(dot, node)
                    else:
                        self.condition(dot, node)
                finally:
                    del self.variables[known:]
            case nodes.Call():
                self.template(dot, node)
            case nodes.Jump():
                raise _Break if node.kind == "break" else _Continue
            case _:
                raise self.failure(f"unknown node: {node}")

    def condition(self, dot: Any, node: nodes.Branch) -> None:
        value = self.pipeline(dot, node.pipe)
        if truth(value):
            self.walk(value if node.kind == "with" else dot, node.body)
        elif node.otherwise is not None:
            self.walk(dot, node.otherwise)

    def range(self, dot: Any, node: nodes.Branch) -> None:
        value = self.pipeline(dot, node.pipe)
        mark = len(self.variables)
        declares = len(node.pipe.declares)
        empty = True
        for index, element in self.elements(value, declares):
            empty = False
            self.step()
            if node.pipe.assigns:
                if declares > 1:
                    self.assign(node.pipe.declares[0].names[0], index)
                if declares:
                    self.assign(node.pipe.declares[-1].names[0], element)
            else:
                if declares > 1:
                    self.variables[mark - 2] = self.variables[mark - 2][0], index
                if declares:
                    self.variables[mark - 1] = self.variables[mark - 1][0], element
            try:
                self.walk(element, node.body)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[mark:]
        if empty and node.otherwise is not None:
            self.walk(dot, node.otherwise)

    def elements(self, value: Any, declares: int) -> Iterator[tuple[Any, Any]]:
        if value is None:
            return
        if isinstance(value, Mapping):
            for key in sorted(value):
                yield key, value[key]
        elif isinstance(value, int) and not isinstance(value, bool):
            if declares > 1:
                raise self.failure(f"can't use {go_text(value)} to iterate over more than one variable")
            yield from ((number, number) for number in range(value))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from enumerate(value)
        else:
            raise self.failure(f"range can't iterate over {go_text(value)}")

    def template(self, dot: Any, node: nodes.Call) -> None:
        if node.name not in self.trees:
            raise self.failure(f"template {quote(node.name)} not defined")
        depth_max = self.budget.limits.depth_max
        if self.depth >= depth_max:
            raise self.failure(f"exceeded maximum template depth ({depth_max})")
        data = None if node.pipe is None else self.pipeline(dot, node.pipe)
        Execution(
            node.name, self.parse_name, self.text, self.trees, self.functions, self.zero_missing, self.budget,
            self.depth + 1,
        ).run(data)  # fmt: skip

    def printed(self, node: nodes.Node, value: Any) -> str:
        if isinstance(value, Function):
            raise self.failure(f"can't print {node} of type {go_type(value)}")
        return go_text(printable(value))

    # Pipelines.

    def pipeline(self, dot: Any, pipe: nodes.Pipe) -> Any:
        self.node = pipe
        value = _MISSING
        for command in pipe.commands:
            value = self.command(dot, command, value)
        for variable in pipe.declares:
            if pipe.assigns:
                self.assign(variable.names[0], value)
            else:
                self.variables.append((variable.names[0], value))
        return value

    def assign(self, name: str, value: Any) -> None:
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                self.variables[at] = name, value
                return
        raise self.failure(f"undefined variable: {name}")

    def variable(self, name: str) -> Any:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise self.failure(f"undefined variable: {name}")

    def no_arguments(self, args: Sequence[nodes.Node], final: Any) -> None:
        if len(args) > 1 or final is not _MISSING:
            raise self.failure(f"can't give argument to non-function {args[0]}")

    def command(self, dot: Any, command: nodes.Command, final: Any) -> Any:
        first, args = command.args[0], command.args
        match first:
            case nodes.Field() | nodes.Chain() | nodes.Variable():
                return self.access(dot, first, args, final)
            case nodes.Identifier():
                return self.function(dot, first, command, args, final)
            case nodes.Pipe():
                self.no_arguments(args, final)
                return self.pipeline(dot, first)
        self.node = first
        self.no_arguments(args, final)
        if isinstance(first, nodes.Nil):
            raise self.failure("nil is not a command")
        return self.constant(dot, first)

    def constant(self, dot: Any, node: nodes.Node) -> Any:
        self.node = node
        match node:
            case nodes.Bool():
                return node.value
            case nodes.Dot():
                return dot
            case nodes.String():
                return node.text
            case nodes.Number():
                hexadecimal = node.text.lstrip("+-")[:2].lower() == "0x" and "p" not in node.text.lower()
                if node.text[0] != "'" and not hexadecimal and any(mark in node.text for mark in ".eEpP"):
                    return node.real
                if node.integer is None:
                    raise self.failure(f"{node.text} overflows int")
                return node.integer
        raise self.failure(f"can't evaluate command {quote(str(node))}")

    def access(self, dot: Any, node: nodes.Node, args: Sequence[nodes.Node], final: Any) -> Any:
        """Fields, keys and methods along a chain; only the last one gets arguments."""
        self.node = node
        match node:
            case nodes.Field():
                value, names = dot, node.names
            case nodes.Variable():
                value, names = self.variable(node.names[0]), node.names[1:]
                if not names:
                    self.no_arguments(args or [node], final)
                    return value
            case nodes.Chain():
                if isinstance(node.node, nodes.Nil):
                    raise self.failure(f"indirection through explicit nil in {node}")
                value, names = self.argument(dot, ANY, node.node), node.names
            case _:
                raise AssertionError(node)
        static = ""
        for name in names[:-1]:
            value, static = self.field(dot, name, node, (), _MISSING, value, static), static_type(value, name)
        return self.field(dot, names[-1], node, args, final, value, static)

    def field(
        self,
        dot: Any,
        name: str,
        node: nodes.Node,
        args: Sequence[nodes.Node],
        final: Any,
        receiver: Any,
        static: str,
    ) -> Any:
        """`static`: the type that the receiver is declared with, where that is not its own."""
        if receiver is None:
            return None
        if found := method(receiver, name):
            return self.call(dot, found, node, name, args, final)
        has_arguments = len(args) > 1 or final is not _MISSING
        if isinstance(receiver, Object) and name in receiver.fields:
            if has_arguments:
                raise self.failure(f"{name} has arguments but cannot be invoked as function")
            return getattr(receiver, name)
        if isinstance(receiver, Mapping):
            if has_arguments:
                raise self.failure(f"{name} is not a method but has arguments")
            if name in receiver:
                return receiver[name]
            return map_zero(receiver) if self.zero_missing else None
        raise self.failure(f"can't evaluate field {name} in type {static or go_type(receiver)}")

    # Calls.

    def function(
        self, dot: Any, node: nodes.Identifier, shown: nodes.Node, args: Sequence[nodes.Node], final: Any
    ) -> Any:
        self.node = node
        found = self.functions.get(node.name)
        if found is None:
            raise self.failure(f"{quote(node.name)} is not a defined function")
        return self.call(dot, found, shown, node.name, args, final)

    def call(
        self, dot: Any, function: Function, node: nodes.Node, name: str, args: Sequence[nodes.Node], final: Any
    ) -> Any:
        args = args[1:]
        count = len(args) + (final is not _MISSING)
        fixed = len(function.parameters)
        if function.variadic is not None:
            if count < fixed:
                raise self.failure(f"wrong number of args for {name}: want at least {fixed} got {len(args)}")
        elif count != fixed:
            raise self.failure(f"wrong number of args for {name}: want {fixed} got {count}")
        if name in ("and", "or") and function is self.functions.get(name):
            return self.logic(dot, name, args, final)
        given = [self.argument(dot, function.parameter(at), arg) for at, arg in enumerate(args)]
        if final is not _MISSING:
            given.append(self.validated(final, function.parameter(count - 1)))
        if name == "call" and function is BUILTINS["call"] and not isinstance(given[0], Function):
            what = "call of nil" if given[0] is None else f"non-function {args[0]} of type {go_type(given[0])}"
            self.node = node
            raise self.failure(f"error calling call: {what}")
        try:
            return function.call(*given)
        except FunctionError as error:
            self.node = node
            raise self.failure(f"error calling {name}: {error.describe()}") from None

    def logic(self, dot: Any, name: str, args: Sequence[nodes.Node], final: Any) -> Any:
        value: Any = None
        for arg in args:
            value = self.argument(dot, REFLECT, arg)
            if truth(value) == (name == "or"):
                return value
        return value if final is _MISSING else final

    def argument(self, dot: Any, wanted: str, node: nodes.Node) -> Any:
        self.node = node
        match node:
            case nodes.Dot():
                return self.validated(dot, wanted)
            case nodes.Nil():
                if wanted in (ANY, REFLECT) or wanted[0] in "*[" or wanted.startswith("map["):
                    return None
                raise self.failure(f"cannot assign nil to {wanted}")
            case nodes.Field() | nodes.Variable() | nodes.Chain():
                return self.validated(self.access(dot, node, (), _MISSING), wanted)
            case nodes.Pipe():
                return self.validated(self.pipeline(dot, node), wanted)
            case nodes.Identifier():
                return self.validated(self.function(dot, node, node, (), _MISSING), wanted)
        return self.literal(dot, wanted, node)

    def literal(self, dot: Any, wanted: str, node: nodes.Node) -> Any:
        match wanted:
            case "bool":
                if isinstance(node, nodes.Bool):
                    return node.value
                raise self.failure(f"expected bool; found {node}")
            case "string":
                if isinstance(node, nodes.String):
                    return node.text
                raise self.failure(f"expected string; found {node}")
            case "int":
                if isinstance(node, nodes.Number) and node.integer is not None:
                    return node.integer
                raise self.failure(f"expected integer; found {node}")
            case "float64":
                if isinstance(node, nodes.Number) and node.real is not None:
                    return node.real
                raise self.failure(f"expected float; found {node}")
            case "interface {}" | "reflect.Value":
                return self.constant(dot, node)
        raise self.failure(f"can't handle {node} for arg of type {wanted}")

    def validated(self, value: Any, wanted: str) -> Any:
        if wanted in (ANY, REFLECT):
            return value
        if value is None:
            if wanted[0] in "*[" or wanted.startswith("map["):
                return None
            raise self.failure(f"invalid value; expected {wanted}")
        found = go_type(value)
        if found not in (wanted, f"*{wanted}"):
            raise self.failure(f"wrong type for value; expected {wanted}; got {found}")
        return value


def execute(
    name: str,
    parse_name: str,
    text: str,
    trees: Mapping[str, nodes.List],
    functions: Mapping[str, Function],
    data: object,
    zero_missing: bool,
    limits: Limits,
) -> str:
    """The output of a template. Raises `TemplateExecutionError`."""
    budget = _Budget(limits, [])
    Execution(name, parse_name, text, trees, functions, zero_missing, budget).run(data)
    return "".join(budget.out)
