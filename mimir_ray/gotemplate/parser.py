"""Tokens → trees, one for the text and one for each `define` and `block` in it.

Upstream: text/template/parse/parse.go.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator

from mimir_ray.model.matchers import quote

from . import nodes
from .errors import TemplateSyntaxError
from .floats import parse_float
from .lexer import Token, tokens
from .literals import BadLiteral, unquote, unquote_rune

NESTING_MAX = 100
"""Of blocks and parentheses in one text; Go has no such bound, its stack grows."""

_OPERANDS = frozenset(
    {"bool", "charconst", "dot", "field", "identifier", "number", "nil", "raw", "string", "variable", "lparen"}
)


def parse(name: str, text: str, functions: Container[str]) -> dict[str, nodes.List]:
    """Trees by template name; the text itself stands under `name`. Raises `TemplateSyntaxError`."""
    return _Parser(name, text, functions).run()


def is_empty(tree: nodes.Node) -> bool:
    """Nothing but space: such a definition gives way to another of its name. Upstream: parse.IsEmptyTree."""
    if isinstance(tree, nodes.List):
        return all(map(is_empty, tree.nodes))
    return isinstance(tree, nodes.Text) and not tree.text.strip(" \t\r\n\v\f\x85\xa0")


class _Parser:
    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self.name = name
        self.functions = functions
        self.source: Iterator[Token] = tokens(text)
        self.newest = Token("text", 0, "", 1)
        self.pending: list[Token] = []
        self.variables = ["$"]
        self.loops = 0
        self.depth = 0
        self.action_line = 0
        self.trees: dict[str, nodes.List] = {}

    # Tokens.

    def next(self) -> Token:
        if self.pending:
            return self.pending.pop()
        self.newest = next(self.source, Token("eof", self.newest.position, "", self.newest.line))
        return self.newest

    def back(self, *read: Token) -> None:
        """Puts tokens back; the last of them was read last."""
        self.pending.extend(reversed(read))

    def peek(self) -> Token:
        token = self.next()
        self.back(token)
        return token

    def next_word(self) -> Token:
        token = self.next()
        while token.kind == "space":
            token = self.next()
        return token

    def peek_word(self) -> Token:
        token = self.next_word()
        self.back(token)
        return token

    def expect(self, kind: str, context: str) -> Token:
        token = self.next_word()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    def error(self, reason: str) -> TemplateSyntaxError:
        return TemplateSyntaxError(f"template: {self.name}:{self.newest.line}: {reason}")

    def unexpected(self, token: Token, context: str) -> TemplateSyntaxError:
        if token.kind != "error":
            return self.error(f"unexpected {token} in {context}")
        where = ""
        if self.action_line and self.action_line != token.line:
            where = f" in action started at {self.name}:{self.action_line}"
            if token.value.endswith(" action"):
                where = where.removeprefix(" in action")
        return self.error(f"{token}{where}")

    # Blocks.

    def run(self) -> dict[str, nodes.List]:
        root = nodes.List(self.peek().position)
        while self.peek().kind != "eof":
            token = self.next()
            if token.kind == "left":
                word = self.next_word()
                if word.kind == "keyword" and word.value == "define":
                    self.definition()
                    continue
                self.back(token, word)
            else:
                self.back(token)
            node = self.text_or_action()
            if isinstance(node, nodes.Mark):
                raise self.error(f"unexpected {node}")
            root.nodes.append(node)
        self.add(self.name, root)
        return self.trees

    def add(self, name: str, tree: nodes.List) -> None:
        if name not in self.trees or is_empty(self.trees[name]):
            self.trees[name] = tree
        elif not is_empty(tree):
            raise self.error(f"template: multiple definition of template {quote(name)}")

    def definition(self) -> None:
        name = self.template_name(self.next_word(), "define clause")
        self.expect("right", "define clause")
        body, end = self.in_own_scope()
        if end.kind != "end":
            raise self.error(f"unexpected {end} in define clause")
        self.add(name, body)

    def in_own_scope(self) -> tuple[nodes.List, nodes.Mark]:
        """The body of a definition: it knows no variables and no loops from around it."""
        outer = self.variables, self.loops
        self.variables, self.loops = ["$"], 0
        found = self.items()
        self.variables, self.loops = outer
        return found

    def items(self) -> tuple[nodes.List, nodes.Mark]:
        """Up to `end` or `else`, which is returned too."""
        self.deeper(1)
        body = nodes.List(self.peek_word().position)
        while self.peek_word().kind != "eof":
            node = self.text_or_action()
            if isinstance(node, nodes.Mark):
                self.deeper(-1)
                return body, node
            body.nodes.append(node)
        raise self.error("unexpected EOF")

    def deeper(self, change: int) -> None:
        self.depth += change
        if self.depth > NESTING_MAX:
            raise self.error(f"exceeded maximum nesting of {NESTING_MAX}")

    def text_or_action(self) -> nodes.Node:
        token = self.next_word()
        if token.kind == "text":
            return nodes.Text(token.position, token.value)
        if token.kind != "left":
            raise self.unexpected(token, "input")
        self.action_line = token.line
        node = self.action()
        self.action_line = 0
        return node

    def action(self) -> nodes.Node:
        token = self.next_word()
        if token.kind == "keyword":
            if token.value == "end":
                return nodes.Mark(self.expect("right", "end").position, "end")
            if token.value == "else":
                following = self.peek_word()
                if following.kind == "keyword" and following.value in ("if", "with"):
                    return nodes.Mark(following.position, "else")
                return nodes.Mark(self.expect("right", "else").position, "else")
            if token.value in ("if", "range", "with"):
                return self.branch(token.value)
            if token.value == "template":
                return self.call()
            if token.value == "block":
                return self.block()
            if token.value in ("break", "continue"):
                return self.jump(token)
        self.back(token)
        position = self.peek().position
        return nodes.Action(position, self.pipeline("command", "right"))

    def jump(self, word: Token) -> nodes.Node:
        token = self.next_word()
        if token.kind != "right":
            raise self.unexpected(token, f"{{{{{word.value}}}}}")
        if not self.loops:
            raise self.error(f"{{{{{word.value}}}}} outside {{{{range}}}}")
        return nodes.Jump(word.position, word.value)

    def branch(self, kind: str) -> nodes.Branch:
        known = len(self.variables)
        pipe = self.pipeline(kind, "right")
        self.loops += kind == "range"
        body, end = self.items()
        self.loops -= kind == "range"
        otherwise = None
        if end.kind == "else":
            following = self.peek()
            if following.kind == "keyword" and following.value == kind and kind in ("if", "with"):
                # `{{else if}}` is an `if` inside of `else`; the one `{{end}}` closes both.
                self.next()
                self.deeper(1)
                otherwise = nodes.List(end.position, [self.branch(kind)])
                self.deeper(-1)
            else:
                otherwise, end = self.items()
                if end.kind != "end":
                    raise self.error(f"expected end; found {end}")
        del self.variables[known:]
        return nodes.Branch(pipe.position, kind, pipe, body, otherwise)

    def call(self) -> nodes.Call:
        token = self.next_word()
        name = self.template_name(token, "template clause")
        following = self.next_word()
        pipe = None
        if following.kind != "right":
            self.back(following)
            pipe = self.pipeline("template clause", "right")
        return nodes.Call(token.position, name, pipe)

    def block(self) -> nodes.Call:
        token = self.next_word()
        name = self.template_name(token, "block clause")
        pipe = self.pipeline("block clause", "right")
        body, end = self.in_own_scope()
        if end.kind != "end":
            raise self.error(f"unexpected {end} in block clause")
        self.add(name, body)
        return nodes.Call(token.position, name, pipe)

    def template_name(self, token: Token, context: str) -> str:
        if token.kind not in ("string", "raw"):
            raise self.unexpected(token, context)
        return self.literal(token)

    def literal(self, token: Token) -> str:
        try:
            return unquote(token.value)
        except BadLiteral:
            raise self.error("invalid syntax") from None

    # Pipelines.

    def pipeline(self, context: str, end: str) -> nodes.Pipe:
        pipe = nodes.Pipe(self.peek_word().position)
        self.declarations(pipe, context)
        while True:
            token = self.next_word()
            if token.kind == end:
                self.check(pipe, context)
                return pipe
            if token.kind not in _OPERANDS:
                raise self.unexpected(token, context)
            self.back(token)
            pipe.commands.append(self.command())

    def declarations(self, pipe: nodes.Pipe, context: str) -> None:
        while self.peek_word().kind == "variable":
            variable = self.next_word()
            read = [variable]
            following = self.next()
            read.append(following)
            if following.kind == "space":
                following = self.next_word()
                read.append(following)
            if following.kind in ("declare", "assign"):
                pipe.assigns = following.kind == "assign"
                pipe.declares.append(nodes.Variable(variable.position, variable.value.split(".")))
                self.variables.append(variable.value)
                return
            if following.kind == "char" and following.value == ",":
                pipe.declares.append(nodes.Variable(variable.position, variable.value.split(".")))
                self.variables.append(variable.value)
                if context == "range" and len(pipe.declares) < 2:
                    if self.peek_word().kind not in ("variable", "right", "rparen"):
                        raise self.error("range can only initialize variables")
                    continue
                raise self.error(f"too many declarations in {context}")
            self.back(*read)
            return

    def check(self, pipe: nodes.Pipe, context: str) -> None:
        if not pipe.commands:
            raise self.error(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.args[0], nodes.Bool | nodes.Dot | nodes.Nil | nodes.Number | nodes.String):
                raise self.error(f"non executable command in pipeline stage {stage}")

    def command(self) -> nodes.Command:
        command = nodes.Command(self.peek_word().position)
        while True:
            self.peek_word()  # leaves spaces behind
            operand = self.operand()
            if operand is not None:
                command.args.append(operand)
            token = self.next()
            if token.kind == "space":
                continue
            if token.kind in ("right", "rparen"):
                self.back(token)
            elif token.kind != "pipe":
                raise self.unexpected(token, "operand")
            break
        if not command.args:
            raise self.error("empty command")
        return command

    def operand(self) -> nodes.Node | None:
        node = self.term()
        if node is None or self.peek().kind != "field":
            return node
        position = self.peek().position
        names = []
        while self.peek().kind == "field":
            names.append(self.next().value[1:])
        if isinstance(node, nodes.Field):
            return nodes.Field(position, node.names + names)
        if isinstance(node, nodes.Variable):
            return nodes.Variable(position, node.names + names)
        if isinstance(node, nodes.Bool | nodes.String | nodes.Number | nodes.Nil | nodes.Dot):
            raise self.error(f"unexpected . after term {quote(str(node))}")
        return nodes.Chain(position, node, names)

    def term(self) -> nodes.Node | None:
        token = self.next_word()
        at, value = token.position, token.value
        match token.kind:
            case "identifier":
                if value not in self.functions:
                    raise self.error(f"function {quote(value)} not defined")
                return nodes.Identifier(at, value)
            case "dot":
                return nodes.Dot(at)
            case "nil":
                return nodes.Nil(at)
            case "variable":
                if value not in self.variables:
                    raise self.error(f"undefined variable {quote(value)}")
                return nodes.Variable(at, [value])
            case "field":
                return nodes.Field(at, [value[1:]])
            case "bool":
                return nodes.Bool(at, value == "true")
            case "charconst" | "number":
                return self.number(token)
            case "lparen":
                self.deeper(1)
                pipe = self.pipeline("parenthesized pipeline", "rparen")
                self.deeper(-1)
                return pipe
            case "string" | "raw":
                return nodes.String(at, value, self.literal(token))
        self.back(token)
        return None

    def number(self, token: Token) -> nodes.Number:
        text = token.value
        if token.kind == "charconst":
            try:
                code = unquote_rune(text)
            except BadLiteral:
                raise self.error(f"malformed character constant: {text}") from None
            return nodes.Number(token.position, text, code, float(code))
        integer = _integer(text)
        real = parse_float(text.replace("_", "")) if integer is None else float(integer)
        if real is None or math.isinf(real):
            raise self.error(f"illegal number syntax: {quote(text)}")
        if integer is None and not any(mark in text for mark in ".eEpP"):
            if not text.isdecimal() or text.startswith("0") or int(text) >= 1 << 64:
                raise self.error(f"integer overflow: {quote(text)}")
        elif integer is None and real.is_integer() and abs(real) < 1 << 63:
            integer = int(real)
        return nodes.Number(token.position, text, integer, real)


def _integer(text: str) -> int | None:
    """As `strconv.ParseInt(text, 0, 64)`: prefixes say the base, a leading 0 is octal."""
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-")
    try:
        if len(bare) > 1 and bare[0] == "0" and bare[1] in "01234567_":
            value = sign * int(bare, 8)
        else:
            value = sign * int(bare, 0)
    except ValueError:
        return None
    return value if -(1 << 63) <= value < 1 << 63 else None
