"""The generated protobuf package is what protos/ says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimir_ray.wire import generate


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    names = generate.generate(tmp_path)
    checked_in = sorted(
        path.relative_to(generate.GENERATED)
        for path in generate.GENERATED.rglob("*.py*")
        if "__pycache__" not in path.parts
    )
    assert names == checked_in, "run python -m mimir_ray.wire.generate"
    for name in names:
        fresh, old = (tmp_path / name).read_text(), (generate.GENERATED / name).read_text()
        assert fresh == old, f"{name}: run python -m mimir_ray.wire.generate"
