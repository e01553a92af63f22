"""The page of functions."""

from __future__ import annotations

from pathlib import Path

from mimir_ray.promql.reference import page
from mimir_ray.promql.syntax.signatures import AGGREGATORS, SIGNATURES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "promql-functions.md"


def test_the_page_of_functions_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_function_and_aggregation_has_a_row() -> None:
    text = page()
    for name in SIGNATURES:
        assert f"\n| [`{name}`](" in text
    for op in AGGREGATORS:
        assert f"\n| `{op}` |" in text


def test_a_row_says_what_the_tables_say() -> None:
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")[2:-1]]
        for line in page().splitlines()
        if "[`" in line
    }
    assert rows["rate"] == ["range vector", "instant vector", "each series", "", "`anchored`, `smoothed`", ""]
    assert rows["label_join"][0] == "instant vector, string, string, [string ...]"
    assert rows["info"] == [
        "instant vector, [instant vector]",
        "instant vector",
        "all series",
        "stays",
        "",
        "experimental",
    ]
