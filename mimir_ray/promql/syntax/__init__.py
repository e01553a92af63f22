"""PromQL as text: lexer, parser, type check, printer."""
