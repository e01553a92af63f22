"""Tenant ids: which are valid, and how several are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.errors import ClientError
from mimir_ray.model.tenant import InvalidTenant, NoTenant, TooManyTenants, parse_tenants, validate_tenant


@pytest.mark.parametrize("text", ["anonymous", "a", "A-9!_.*'()", "...", ".a", "a" * 150])
def test_these_are_tenants(text: str) -> None:
    assert validate_tenant(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a/b", "tenant ID 'a/b' contains unsupported character '/'"),
        ("a b", "tenant ID 'a b' contains unsupported character ' '"),
        ("ä", "tenant ID 'ä' contains unsupported character 'ä'"),
        ("a\n", "tenant ID 'a\n' contains unsupported character '\n'"),
        ("a\\b", "tenant ID 'a\\b' contains unsupported character '\\'"),
        ("\0", "tenant ID '\0' contains unsupported character '\0'"),
        ("a" * 151, "tenant ID is too long: max 150 characters"),
        (".", "tenant ID is '.' or '..'"),
        ("..", "tenant ID is '.' or '..'"),
        ("__mimir_cluster", "tenant ID '__mimir_cluster' is not allowed"),
    ],
)
def test_these_are_none_and_the_reason_is_said(text: str, reason: str) -> None:
    with pytest.raises(InvalidTenant) as caught:
        validate_tenant(text)
    assert str(caught.value) == reason


def test_several_tenants_come_sorted_and_once() -> None:
    assert parse_tenants("b|a|b", allowed=0) == ("a", "b")
    assert parse_tenants("a|a") == ("a",)


@pytest.mark.parametrize("header", [None, "", "|", "a|", "|a"])
def test_a_missing_tenant_is_an_error(header: str | None) -> None:
    with pytest.raises(NoTenant, match="no org id"):
        parse_tenants(header, allowed=0)


def test_too_many_tenants_are_counted() -> None:
    with pytest.raises(TooManyTenants, match="max: 2 actual: 3"):
        parse_tenants("a|b|c", allowed=2)


@given(st.text(max_size=200))
def test_no_tenant_leads_out_of_its_folder(text: str) -> None:
    try:
        tenants = parse_tenants(text, allowed=0)
    except ClientError:
        return
    assert all(one and one not in (".", "..") and not set(one) & set("/\\\0") for one in tenants)
