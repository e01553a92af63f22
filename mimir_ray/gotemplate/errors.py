"""What can go wrong with a template, in Go's words: users compare them with what Prometheus says."""

from __future__ import annotations

from mimir_ray.errors import ClientError, InvalidArgument


class TemplateSyntaxError(InvalidArgument):
    """A text that is no template: `template: NAME:LINE: what is wrong`."""


class TemplateExecutionError(ClientError):
    """A template that cannot be carried out on its data: `template: NAME:LINE:COLUMN: executing ...`."""


class FunctionError(ClientError):
    """Raised by a function that templates call; execution ends with `error calling NAME: ...`."""
