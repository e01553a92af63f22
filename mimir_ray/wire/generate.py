"""Generates mimir_ray/wire/pb from protos/: `python -m mimir_ray.wire.generate`.

Needs grpcio-tools (a development dependency). protoc names imports by proto path; they are moved
below this package, so that nothing depends on `sys.path`. `tests/wire` checks that the result is fresh.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"
GENERATED = Path(__file__).parent / "pb"
_PACKAGE_DOC = '"""Generated from protos/ by mimir_ray/wire/generate.py; do not edit."""\n'


def generate(target: Path) -> list[Path]:
    """Writes the package into `target`; returns the files, relative to it, sorted."""
    from grpc_tools import protoc  # noqa: PLC0415  (not there where the package only runs)

    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    status = protoc.main(
        ["protoc", f"--proto_path={PROTOS}", f"--python_out={target}", f"--pyi_out={target}", *sources]
    )
    if status:
        raise RuntimeError(f"protoc ended with status {status}")
    folders = {folder for source in sources for folder in Path(source).parents}
    for folder in folders:
        (target / folder / "__init__.py").write_text(_PACKAGE_DOC)
    for path in target.rglob("*_pb2.py*"):
        text = path.read_text()
        for folder in sorted(folders - {Path()}, reverse=True):
            package = ".".join(folder.parts)
            text = text.replace(f"from {package} import", f"from mimir_ray.wire.pb.{package} import")
        path.write_text(text)
    return sorted(path.relative_to(target) for path in target.rglob("*.py*"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in generate(Path(folder)):
            (GENERATED / name).parent.mkdir(parents=True, exist_ok=True)
            (GENERATED / name).write_text((Path(folder) / name).read_text())


if __name__ == "__main__":
    main()
