"""`Template`: Go's text/template for what rules and notifications use of it.

Template.parse("name", "up is {{ .Value | printf \"%.1f\" }}", functions).execute(data)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mimir_ray.model.matchers import quote

from . import nodes, parser
from .builtins import BUILTINS
from .errors import TemplateExecutionError, TemplateSyntaxError
from .execution import DEFAULT_LIMITS, Limits, execute
from .values import Function


@dataclass(frozen=True, slots=True)
class Template:
    """Parsed text with what it may call. Immutable; any number of executions at once."""

    name: str
    text: str
    trees: Mapping[str, nodes.List]
    functions: Mapping[str, Function]

    @classmethod
    def parse(cls, name: str, text: str, functions: Mapping[str, Function] | None = None) -> Template:
        """Raises `TemplateSyntaxError` with Go's text."""
        known = {**BUILTINS, **(functions or {})}
        try:
            trees = parser.parse(name, text, known)
        except RecursionError:
            raise TemplateSyntaxError(f"template: {name}:1: nested too deeply") from None
        return cls(name, text, trees, known)

    def execute(
        self,
        data: object,
        *,
        template: str | None = None,
        zero_missing: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> str:
        """The output.

        Args:
            template: which of the templates defined in the text; None: the text itself.
            zero_missing: Go's option `missingkey=zero`: a missing key of a map gives the zero of its type.

        Raises `TemplateExecutionError` with Go's text.
        """
        wanted = self.name if template is None else template
        if wanted not in self.trees:
            raise TemplateExecutionError(
                f"template: no template {quote(wanted)} associated with template {quote(self.name)}"
            )
        try:
            return execute(wanted, self.name, self.text, self.trees, self.functions, data, zero_missing, limits)
        except RecursionError:
            # Blocks within templates within templates: the bounds on each do not bound their product.
            raise TemplateExecutionError(f"template: {self.name}: exceeded maximum template depth") from None
