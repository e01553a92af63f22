"""The syntax tree. `str(node)` is how Go's error messages show it. Upstream: text/template/parse/node.go."""

from __future__ import annotations

from dataclasses import dataclass, field

from mimir_ray.model.matchers import quote


@dataclass(slots=True)
class Node:
    position: int
    """In characters of the text."""


@dataclass(slots=True)
class Text(Node):
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Bool(Node):
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(slots=True)
class Number(Node):
    """`integer`, `real`: None where the number is none of that kind."""

    text: str
    integer: int | None
    real: float | None

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class String(Node):
    quoted: str
    text: str

    def __str__(self) -> str:
        return self.quoted


@dataclass(slots=True)
class Dot(Node):
    def __str__(self) -> str:
        return "."


@dataclass(slots=True)
class Nil(Node):
    def __str__(self) -> str:
        return "nil"


@dataclass(slots=True)
class Field(Node):
    names: list[str]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(slots=True)
class Variable(Node):
    """The first name has its `$`, the rest are fields."""

    names: list[str]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(slots=True)
class Identifier(Node):
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Chain(Node):
    node: Node
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        inside = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return inside + "".join(f".{name}" for name in self.names)


@dataclass(slots=True)
class Command(Node):
    args: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@dataclass(slots=True)
class Pipe(Node):
    declares: list[Variable] = field(default_factory=list)
    assigns: bool = False
    commands: list[Command] = field(default_factory=list)

    def __str__(self) -> str:
        head = ", ".join(map(str, self.declares))
        if head:
            head += " = " if self.assigns else " := "
        return head + " | ".join(map(str, self.commands))


@dataclass(slots=True)
class Action(Node):
    pipe: Pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@dataclass(slots=True)
class List(Node):
    nodes: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@dataclass(slots=True)
class Branch(Node):
    """`kind`: if, range or with."""

    kind: str
    pipe: Pipe
    body: List
    otherwise: List | None

    def __str__(self) -> str:
        rest = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{self.kind} {self.pipe}}}}}{self.body}{rest}{{{{end}}}}"


@dataclass(slots=True)
class Call(Node):
    """`{{template "name" pipe}}`."""

    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        rest = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{rest}}}}}"


@dataclass(slots=True)
class Jump(Node):
    """`kind`: break or continue."""

    kind: str

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"


@dataclass(slots=True)
class Mark(Node):
    """`{{end}}` or `{{else}}`, while parsing only."""

    kind: str

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"
