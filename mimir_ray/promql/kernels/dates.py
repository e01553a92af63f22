"""Parts of a date (UTC) from seconds since 1970.

Upstream: promql/functions.go dateWrapper with Go's time package. Values that are no int64 (NaN, infinities)
become the smallest int64, as Go's conversion does on amd64, and times wrap as Go's do.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64x2, OutF64x2, device, kernel

YEAR, MONTH, DAY_OF_MONTH, DAY_OF_WEEK, DAY_OF_YEAR, DAYS_IN_MONTH, HOUR, MINUTE = range(8)

_FIRST_YEAR = -292277022399
"""Go counts from the first of January of this year, which begins a cycle of 400 years."""
_SECONDS_TO_1970 = 9223372028715321600
_DAY_S = 86400
_SMALLEST = -9223372036854775808


@device
def month_of(day_of_year, leap):  # type: ignore[no-untyped-def]
    """(month 1-12, day in it from 0, days in it) of a day counted from 0."""
    day = day_of_year
    for month in range(1, 13):
        if month == 2:
            days = 29 if leap else 28
        elif month in (4, 6, 9, 11):
            days = 30
        else:
            days = 31
        if day < days:
            return month, day, days
        day -= days
    return 12, day, 31


@kernel
def date_part(values: F64x2, part: int, out: OutF64x2) -> None:
    """One of the parts above of each of the [S, T] values (seconds)."""
    for s in range(values.shape[0]):
        for t in range(values.shape[1]):
            value = values[s, t]
            seconds = np.int64(_SMALLEST)
            if value >= -9223372036854775808.0 and value < 9223372036854775808.0:
                seconds = np.int64(value)
            since = np.uint64(seconds) + np.uint64(_SECONDS_TO_1970)
            days = np.int64(since // np.uint64(_DAY_S))
            in_day = np.int64(since % np.uint64(_DAY_S))
            if part == HOUR:
                out[s, t] = float(in_day // 3600)
                continue
            if part == MINUTE:
                out[s, t] = float(in_day % 3600 // 60)
                continue
            if part == DAY_OF_WEEK:
                out[s, t] = float((days + 1) % 7)  # the first day was a Monday
                continue
            cycles = days // 146097
            rest = days - cycles * 146097
            centuries = rest // 36524
            centuries -= centuries >> 2  # the last day of a leap year ends the century, not begins one
            rest -= centuries * 36524
            fours = rest // 1461
            rest -= fours * 1461
            years = rest // 365
            years -= years >> 2
            day_of_year = rest - years * 365
            year = cycles * 400 + centuries * 100 + fours * 4 + years + _FIRST_YEAR
            if part == YEAR:
                out[s, t] = float(year)
                continue
            if part == DAY_OF_YEAR:
                out[s, t] = float(day_of_year + 1)
                continue
            leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
            month, day, days_in_month = month_of(day_of_year, leap)
            if part == MONTH:
                out[s, t] = float(month)
            elif part == DAY_OF_MONTH:
                out[s, t] = float(day + 1)
            else:
                out[s, t] = float(days_in_month)
