"""Errors cross processes whole: their text and their facts."""

from __future__ import annotations

import pickle

import pytest

from mimir_ray.errors import Corruption, InvalidArgument, MimirRayError, Unavailable
from mimir_ray.model.tenant import TooManyTenants
from mimir_ray.promql.operators.functions_base import InvalidFunctionArgument


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("a value that is none"),
        Unavailable("not now"),
        Corruption(),
        InvalidFunctionArgument("invalid smoothing factor"),
        TooManyTenants(3, 1),
    ],
)
def test_an_error_says_the_same_on_the_other_side(error: MimirRayError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert (str(there), there.args) == (str(error), error.args)
    assert vars(there) == vars(error)
    assert str(pickle.loads(pickle.dumps(there))) == str(error)
