"""What every PromQL function takes and returns: the table that the type checker reads.

Upstream: promql/parser/functions.go Functions.
"""

from __future__ import annotations

from typing import NamedTuple

from .ast import ValueType

_TYPES = {"s": ValueType.SCALAR, "v": ValueType.VECTOR, "m": ValueType.MATRIX, "t": ValueType.STRING}


class Signature(NamedTuple):
    """One function.

    `variadic` as in Prometheus: 0 means exactly the arguments of `arg_types`; n > 0 means that the last
    one may be missing or stand up to n times; -1 means missing or any number of times.
    """

    name: str
    arg_types: tuple[ValueType, ...]
    variadic: int
    returns: ValueType
    experimental: bool

    @property
    def args_min(self) -> int:
        return len(self.arg_types) - (self.variadic != 0)

    @property
    def args_max(self) -> int | None:
        """None: no bound."""
        return None if self.variadic < 0 else self.args_min + self.variadic

    def arg_type(self, index: int) -> ValueType:
        """Of the argument at this index; the last type repeats."""
        return self.arg_types[min(index, len(self.arg_types) - 1)]


# Argument types: s scalar, v instant vector, m range vector, t string; then what is returned.
# `?`, `?9`, `*`: variadic 1, 9, -1. `!`: experimental.
_TABLE = """
abs v:v                                     absent v:v                    absent_over_time m:v
acos v:v                                    acosh v:v                     asin v:v
asinh v:v                                   atan v:v                      atanh v:v
avg_over_time m:v                           ceil v:v                      changes m:v
clamp vss:v                                 clamp_max vs:v                clamp_min vs:v
cos v:v                                     cosh v:v                      count_over_time m:v
day_of_month v:v?                           day_of_week v:v?              day_of_year v:v?
days_in_month v:v?                          deg v:v                       delta m:v
deriv m:v                                   double_exponential_smoothing mss:v!   end :s!
exp v:v                                     first_over_time m:v           floor v:v
histogram_avg v:v                           histogram_count v:v           histogram_fraction ssv:v
histogram_quantile sv:v                     histogram_quantiles vtss:v?9! histogram_stddev v:v
histogram_stdvar v:v                        histogram_sum v:v             hour v:v?
idelta m:v                                  increase m:v                  info vv:v?!
irate m:v                                   label_join vttt:v*            label_replace vtttt:v
last_over_time m:v                          ln v:v                        log10 v:v
log2 v:v                                    mad_over_time m:v!            max_of ss:s!
max_over_time m:v                           min_of ss:s!                  min_over_time m:v
minute v:v?                                 month v:v?                    pi :s
predict_linear ms:v                         present_over_time m:v         quantile_over_time sm:v
rad v:v                                     range :s!                     rate m:v
resets m:v                                  round vs:v?                   scalar v:s
sgn v:v                                     sin v:v                       sinh v:v
sort v:v                                    sort_by_label vt:v*!          sort_by_label_desc vt:v*!
sort_desc v:v                               sqrt v:v                      start :s!
start_timestamp v:v!                        stddev_over_time m:v          stdvar_over_time m:v
step :s!                                    sum_over_time m:v             tan v:v
tanh v:v                                    time :s                       timestamp v:v
ts_of_first_over_time m:v!                  ts_of_last_over_time m:v!     ts_of_max_over_time m:v!
ts_of_min_over_time m:v!                    vector s:v                    year v:v?
"""


def _read(table: str) -> dict[str, Signature]:
    words = table.split()
    found = {}
    for name, text in zip(words[::2], words[1::2], strict=True):
        arguments, _, rest = text.partition(":")
        experimental = rest.endswith("!")
        more = rest.rstrip("!")[1:]
        variadic = {"": 0, "?": 1, "*": -1}.get(more) if more in ("", "?", "*") else int(more[1:])
        assert variadic is not None
        types = tuple(_TYPES[letter] for letter in arguments)
        found[name] = Signature(name, types, variadic, _TYPES[rest[0]], experimental)
    return found


SIGNATURES: dict[str, Signature] = _read(_TABLE)
"""Every function of Prometheus 3.14 by name, stable and experimental."""

AGGREGATORS = frozenset(
    {
        "sum",
        "avg",
        "count",
        "min",
        "max",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "count_values",
        "quantile",
        "limitk",
        "limit_ratio",
    }
)
AGGREGATORS_WITH_PARAM = frozenset({"topk", "bottomk", "count_values", "quantile", "limitk", "limit_ratio"})
EXPERIMENTAL_AGGREGATORS = frozenset({"limitk", "limit_ratio"})
COMPARISONS = frozenset({"==", "!=", "<=", "<", ">=", ">"})
SET_OPERATORS = frozenset({"and", "or", "unless"})
