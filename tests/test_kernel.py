"""The door to numba: one signature, read-only arrays, a cache that knows every source."""

from __future__ import annotations

import ast
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from mimir_ray import kernel as door
from mimir_ray.kernel import F64, I64, OutF64, device, i32, kernel, kernel_modules, u64


@device
def doubled(value: float) -> float:
    return 2 * value


@kernel
def double_all(values: F64, out: OutF64) -> None:
    for at in range(len(values)):
        out[at] = doubled(values[at])


@kernel
def sum_of(values: I64, first: int) -> int:
    total = first
    for value in values:
        total += value
    return total


@kernel
def divide(one: float, other: float) -> float:
    return one / other


@kernel
def mixed(small: i32, large: u64, yes: bool) -> u64:
    return large + np.uint64(small) if yes else large


@device
def total_of(values: np.ndarray) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def test_a_kernel_computes_what_its_python_does() -> None:
    values = np.arange(5, dtype=np.float64)
    out = np.zeros(5)
    double_all(values, out)
    assert out.tolist() == (2 * values).tolist()
    assert sum_of(np.array([1, 2, 3]), 10) == sum_of.py_func(np.array([1, 2, 3]), 10) == 16  # type: ignore[attr-defined]


def test_references_to_arrays_are_counted_only_where_arrays_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIMIR_RAY_KERNEL_CACHE", str(tmp_path))  # code from the cache cannot be looked at

    @kernel
    def total(values: F64) -> float:
        return total_of(values) + total_of(values)

    @kernel
    def middle(values: F64) -> float:
        ordered = values.copy()
        ordered.sort()
        return ordered[len(ordered) // 2] + total_of(ordered[:0])

    values = np.array([3.0, 1.0, 2.0])
    assert (total(values), middle(values)) == (12.0, 2.0)
    for compiled, counts in ((total, False), (middle, True)):
        (code,) = compiled.inspect_llvm().values()  # type: ignore[attr-defined]
        assert "total_of" in code and ("NRT_decref" in code) == counts


def test_arrays_that_are_made_where_none_is_known_to_be_are_an_error() -> None:
    @kernel
    def difference(values: F64) -> float:
        return (values - values)[0]  # type: ignore[no-any-return]

    with pytest.raises(Exception, match="NRT required"):
        difference(np.zeros(1))


def test_arrays_that_are_read_may_be_read_only_or_not_and_run_the_same_code() -> None:
    assert sum_of(read_only(np.array([1, 2])), 0) == sum_of(np.array([1, 2]), 0) == 3
    assert len(sum_of.signatures) == 1  # type: ignore[attr-defined]


def test_an_array_that_is_written_must_be_writable() -> None:
    with pytest.raises(TypeError):
        double_all(np.zeros(2), read_only(np.zeros(2)))


@pytest.mark.parametrize(
    "arguments",
    [
        (np.array([1.0]), 0),
        (np.array([1], np.int32), 0),
        (np.array([1], np.uint64), 0),
        (np.arange(4)[::2], 0),
        (np.array([[1]]), 0),
        ([1, 2], 0),
        (np.array([1]),),
        (np.array([1]), 0, 0),
        (np.array([1]), "0"),
        (np.array([1]), None),
    ],
    ids=["floats", "int32", "uint64", "every second", "matrix", "list", "too few", "too many", "text", "None"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_other_arguments_are_errors_and_no_second_compilation(arguments: tuple[Any, ...], compiled: bool) -> None:
    @kernel
    def fresh(values: I64, first: int) -> int:
        return values[0] + first

    try:
        if compiled:
            fresh(np.array([1]), 1)
        with pytest.raises(TypeError):
            fresh(*arguments)
        assert fresh(np.array([1]), 1) == 2
        assert len(fresh.signatures) == 1  # type: ignore[attr-defined]
    finally:
        del door.REGISTRY[f"{__name__}.fresh"]


def test_scalars_have_the_width_that_they_are_declared_with() -> None:
    assert mixed(5, 2**64 - 10, True) == 2**64 - 5
    assert mixed(5, 7, False) == 7


def test_numbers_divide_as_in_numpy() -> None:
    assert divide(1.0, 0.0) == float("inf")
    assert np.isnan(divide(0.0, 0.0))


def undeclared(values: I64, other) -> None: ...  # type: ignore[no-untyped-def]


def unknown(values: list[int]) -> None: ...


def text(name: str) -> None: ...


@pytest.mark.parametrize("function", [undeclared, unknown, text], ids=["no annotation", "a list", "text"])
def test_a_parameter_without_a_kernel_type_is_an_error_that_names_it(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=r"parameter (other|values|name) has no kernel type"):
        kernel(function)


def test_every_kernel_is_registered_by_its_name() -> None:
    assert door.REGISTRY[f"{__name__}.sum_of"] is sum_of


def test_all_modules_with_kernels_are_found() -> None:
    package = Path(door.__file__).parent
    wanted = set()
    for path in package.rglob("*.py"):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        if any(isinstance(one, ast.Name) and one.id == "kernel" for each in functions for one in each.decorator_list):
            wanted.add(".".join(("mimir_ray", *path.relative_to(package).with_suffix("").parts)))
    assert wanted
    assert wanted <= set(kernel_modules())


# The folders of the cache.


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package to be digested."""
    folder = tmp_path / "package"
    (folder / "deep").mkdir(parents=True)
    (folder / "kernel.py").write_text("the door")
    (folder / "deep" / "sums.py").write_text("from mimir_ray.kernel import kernel\nfrom . import limits as other")
    (folder / "deep" / "limits.py").write_text("from ..codes import (\n    LARGEST,\n)")
    (folder / "codes.py").write_text("LARGEST = 7")
    (folder / "other.py").write_text("print()")
    yield folder
    door.source_digest.cache_clear()


def digest(package: Path) -> str:
    door.source_digest.cache_clear()
    return door.source_digest(package / "deep" / "sums.py", package)


@pytest.mark.parametrize("name", ["kernel.py", "deep/sums.py", "deep/limits.py", "codes.py"])
def test_a_change_of_a_module_or_of_what_it_imports_means_another_folder(package: Path, name: str) -> None:
    before = digest(package)
    assert digest(package) == before
    (package / name).write_text((package / name).read_text() + "\n# changed")
    assert digest(package) != before


def test_other_sources_change_nothing(package: Path) -> None:
    before = digest(package)
    (package / "other.py").write_text("print(2)")
    assert digest(package) == before


def test_the_same_sources_in_another_place_share_a_folder(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "elsewhere")
    assert digest(copy) == digest(package)


def test_the_imports_of_every_module_with_kernels_are_found() -> None:
    for name in door.kernel_modules():
        path = door.PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        assert door.PACKAGE / "kernel.py" in door.imported_files(path)


def test_parameters_have_the_types_that_python_says(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels: list[Any] = [double_all, sum_of, divide, mixed]
    expected = [door._signature(one.py_func) for one in kernels]
    monkeypatch.setattr(door, "_hints", lambda function: get_type_hints(function, include_extras=True))
    assert [door._signature(one.py_func) for one in kernels] == expected


def test_what_is_on_disk_is_known_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Any = double_all
    one(np.zeros(1), np.zeros(1))
    monkeypatch.setattr(door, "REGISTRY", {"one": one})
    assert door.is_cached()
    monkeypatch.setattr(one._cache._cache_file, "_index_path", "/nowhere")
    assert not door.is_cached()


def test_the_cache_goes_where_programs_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIMIR_RAY_KERNEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert door.cache_root() == tmp_path / "xdg" / "mimir-ray" / "kernels"
    assert door.cache_root().is_dir()


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIMIR_RAY_KERNEL_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    root = door.cache_root()
    assert root.is_dir()
    assert root.parent == tmp_path / "temporary"


def test_a_kernel_that_was_loaded_and_packed_can_still_be_a_part_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIMIR_RAY_KERNEL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "parts.py"
    path.write_text(
        "from mimir_ray.kernel import I64, kernel\n\n"
        "@kernel\ndef inner(values: I64) -> int:\n    return values[0] + 1\n\n"
        "@kernel\ndef outer(values: I64) -> int:\n    return 2 * inner(values)\n"
    )
    values = np.array([20], np.int64)
    assert runpy.run_path(str(path))["inner"](values) == 21  # compiled, and kept
    again = runpy.run_path(str(path))
    again["inner"].compile_now()
    (result,) = again["inner"].overloads.values()
    assert result.library._shared_module is not None
    door._pack_library(result.library)
    assert result.library._shared_module is None
    assert again["outer"](values) == 42
