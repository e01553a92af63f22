"""`@kernel`: the one door to numba.

A kernel is a function over arrays and scalars, annotated with the aliases below. Its annotations are
its one signature: arrays that a kernel reads are declared read-only (`I64`, `F64`, ...), so arrays
that crossed an actor boundary and fresh ones run the same machine code; arrays that it writes are
declared writable (`OutI64`, ...). All arrays are C-contiguous. Anything else passed is a TypeError,
never a second compilation.

Machine code is compiled on first use and kept on disk in a folder named by a digest of the module's source and of all
that it imports (numba does not notice an edited callee in another file), wherever the package is installed. `warm_up()`
compiles what is missing, once per node, before actors start. Of processes that need the same kernel one compiles it.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import hashlib
import importlib
import inspect
import os
import pkgutil
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir as _ir
from numba import types
from numba.core import caching
from numba.core import cgutils as _cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic as _intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

# For encoding/bits.py, which writes machine instructions.
ir: Any = _ir
cgutils: Any = _cgutils
intrinsic: Any = _intrinsic
machine_types: Any = types
array_at: Any = numba.carray


def _array(dtype: Any, ndim: int = 1, readonly: bool = True) -> Any:
    return types.Array(dtype, ndim, "C", readonly=readonly)


# Read by the kernel.
Bool = Annotated[NDArray[np.bool_], _array(types.boolean)]
U8 = Annotated[NDArray[np.uint8], _array(types.uint8)]
I8 = Annotated[NDArray[np.int8], _array(types.int8)]
U16 = Annotated[NDArray[np.uint16], _array(types.uint16)]
I32 = Annotated[NDArray[np.int32], _array(types.int32)]
U32 = Annotated[NDArray[np.uint32], _array(types.uint32)]
I64 = Annotated[NDArray[np.int64], _array(types.int64)]
U64 = Annotated[NDArray[np.uint64], _array(types.uint64)]
F64 = Annotated[NDArray[np.float64], _array(types.float64)]
Bool2 = Annotated[NDArray[np.bool_], _array(types.boolean, 2)]
I32x2 = Annotated[NDArray[np.int32], _array(types.int32, 2)]
I64x2 = Annotated[NDArray[np.int64], _array(types.int64, 2)]
F64x2 = Annotated[NDArray[np.float64], _array(types.float64, 2)]
# Written by the kernel.
OutBool = Annotated[NDArray[np.bool_], _array(types.boolean, readonly=False)]
OutU8 = Annotated[NDArray[np.uint8], _array(types.uint8, readonly=False)]
OutI8 = Annotated[NDArray[np.int8], _array(types.int8, readonly=False)]
OutU16 = Annotated[NDArray[np.uint16], _array(types.uint16, readonly=False)]
OutI32 = Annotated[NDArray[np.int32], _array(types.int32, readonly=False)]
OutU32 = Annotated[NDArray[np.uint32], _array(types.uint32, readonly=False)]
OutI64 = Annotated[NDArray[np.int64], _array(types.int64, readonly=False)]
OutU64 = Annotated[NDArray[np.uint64], _array(types.uint64, readonly=False)]
OutF64 = Annotated[NDArray[np.float64], _array(types.float64, readonly=False)]
OutBool2 = Annotated[NDArray[np.bool_], _array(types.boolean, 2, readonly=False)]
OutI32x2 = Annotated[NDArray[np.int32], _array(types.int32, 2, readonly=False)]
OutI64x2 = Annotated[NDArray[np.int64], _array(types.int64, 2, readonly=False)]
OutF64x2 = Annotated[NDArray[np.float64], _array(types.float64, 2, readonly=False)]
# Scalars that are not plain int (int64), float (float64) or bool.
u8 = Annotated[int, types.uint8]
u32 = Annotated[int, types.uint32]
u64 = Annotated[int, types.uint64]
i32 = Annotated[int, types.int32]

_SCALARS = {int: types.int64, float: types.float64, bool: types.boolean}
_NAMED = {kind.__name__: kind for kind in _SCALARS}

# Events of its lock, for profilers of numba's; they take a sixth of the time that loading takes.
llvm.ffi.lib._lock._cblist.clear()

REGISTRY: dict[str, Any] = {}
"""Every kernel by `module.name`; filled when the modules are imported."""


PACKAGE = Path(__file__).parent
_IMPORT = re.compile(rb"^from (mimir_ray|\.+)([\w.]*) import (\(|[\w, ]+)", re.MULTILINE)


def cache_root() -> Path:
    """Where machine code is kept; a folder of our own below the temporary one where that cannot be written."""
    wanted = os.environ.get("MIMIR_RAY_KERNEL_CACHE") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mimir-ray" / "kernels"
    )
    root = Path(wanted)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        root = Path(tempfile.gettempdir()) / f"mimir-ray-kernels-{os.getuid()}"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


@functools.cache
def imported_files(path: Path, package: Path = PACKAGE) -> tuple[Path, ...]:
    """The files of the package that a module imports at its top level, found by its text."""
    found = []
    for root, dotted, names in _IMPORT.findall(path.read_bytes()):
        base = package if root == b"mimir_ray" else path.parents[len(root) - 1]
        target = base.joinpath(*dotted.decode().strip(".").split(".")) if dotted.strip(b".") else base
        if target.with_suffix(".py").is_file():
            found.append(target.with_suffix(".py"))
        elif names == b"(":
            found += sorted(target.glob("*.py"))
        else:  # `from . import sibling as other`
            siblings = [target / f"{name.split()[0].decode()}.py" for name in names.split(b",")]
            found += [one for one in siblings if one.is_file()]
    return tuple(found)


@functools.cache
def source_digest(path: Path, package: Path = PACKAGE) -> str:
    """Of a module and of everything of the package that it imports, directly or not."""
    seen: set[Path] = set()
    ahead = [path]
    while ahead:
        if (one := ahead.pop()) not in seen:
            seen.add(one)
            ahead += imported_files(one, package)
    digest = hashlib.blake2b(digest_size=8)
    for one in sorted(seen):
        digest.update(str(one.relative_to(package)).encode() + b"\0" + one.read_bytes())
    return digest.hexdigest()


class _Locator(caching.InTreeCacheLocator):  # type: ignore[misc]
    """Names a kernel's files by what its machine code depends on, not by paths and times of change."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._lineno = function.__code__.co_firstlineno
        path = Path(file)
        name = path.stem
        if path.is_relative_to(PACKAGE):
            self._stamp = source_digest(path)
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        else:
            self._stamp = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        self._cache_path = str(cache_root() / f"{name}-{self._stamp}")

    def get_source_stamp(self) -> str:
        return self._stamp


class _Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Files


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Of the parameters. Names are looked up: there are 170 kernels at every start, and `get_type_hints` compiles each
    annotation."""
    written = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    found = {name: function.__globals__.get(hint, _NAMED.get(hint)) for name, hint in written.items()}
    return get_type_hints(function, include_extras=True) if None in found.values() else found


def _signature(function: Callable[..., Any]) -> tuple[Any, ...]:
    hints = _hints(function)
    found = []
    for name in inspect.signature(function).parameters:
        hint = hints.get(name)
        metadata = getattr(hint, "__metadata__", None)
        kind = metadata[0] if metadata else _SCALARS.get(hint)  # type: ignore[arg-type]
        if kind is None:
            raise TypeError(f"kernel {function.__name__}: parameter {name} has no kernel type: {hint!r}")
        found.append(kind)
    return tuple(found)


@contextmanager
def _one_process_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Of several that need a kernel one compiles it, and the others find it in the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


_ALLOCATING = frozenset((
    "append", "arange", "argsort", "array", "array_at", "concatenate", "copy", "empty", "empty_like", "full",
    "full_like", "ones", "ones_like", "repeat", "sort", "unique", "zeros", "zeros_like",
))  # fmt: skip
"""What makes arrays, by name."""


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    """numba's dispatcher of a function.

    Where no array is made, none is counted either: at every call of a part numba would take and give back a reference
    to each array, atomic operations that cost ten times as much as reading a label. Who calls a kernel holds its
    arrays. numba refuses to compile a function that makes arrays in a way that is not known here.
    """
    counts = not _ALLOCATING.isdisjoint(function.__code__.co_names)
    return numba.njit(nogil=True, error_model="numpy", _nrt=counts, **options)(function)


def _index(context: Any, builder: Any, kind: Any, index: Any, _size: Any) -> Any:
    return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)


@contextmanager
def _no_index_from_the_end() -> Iterator[None]:
    """What is compiled meanwhile takes indices as they are. Only with numba's lock.

    numba lets a negative index count from the end, and asks at every access whether one is. That costs more than the
    access: loops over a part of an array become gathers, rate takes twice as long. No kernel counts from the end;
    `make bounds` runs the tests with every index checked.
    """
    rule, arrayobj.fix_integer_index = arrayobj.fix_integer_index, _index
    try:
        yield
    finally:
        arrayobj.fix_integer_index = rule


def kernel(function: Function) -> Function:
    """Compiles `function` for the signature its annotations give. Releases the GIL; no fast-math; no index below 0."""
    signature = _signature(function)
    dispatcher = _jit(function)
    dispatcher._cache = _Cache(function)

    def compile_declared(*args: Any, **kwargs: Any) -> Any:
        # numba calls this on the first call and goes on with the machine code that it gets.
        given = tuple(numba.typeof(arg) for arg in args)
        context = dispatcher.typingctx
        fits = len(given) == len(signature) and all(
            context.can_convert(one, declared) is not None for one, declared in zip(given, signature, strict=True)
        )
        if kwargs or not fits:
            raise TypeError(f"kernel {function.__module__}.{function.__name__} takes {signature}, got {given}")
        compile_now()
        return dispatcher.overloads[signature].entry_point

    def compile_now() -> None:
        with global_compiler_lock:
            if signature not in dispatcher.overloads:
                dispatcher._can_compile = True
                only_one = _one_process_at_a_time(Path(dispatcher._cache.cache_path), function.__name__)
                with only_one, _no_index_from_the_end():
                    dispatcher.compile(signature)
            dispatcher.disable_compile()  # from now on arguments convert safely or are refused

    typed_call = dispatcher.get_call_template

    def call_from_kernel(args: Any, kwargs: Any) -> Any:
        # Another kernel may pass writable arrays to be read, a type of its own to numba: that is compiled.
        with global_compiler_lock:
            disabled = not dispatcher._can_compile
            dispatcher._can_compile = True
            try:
                with _no_index_from_the_end():
                    return typed_call(args, kwargs)
            finally:
                if disabled:
                    dispatcher.disable_compile()

    dispatcher._compile_for_args = compile_declared
    dispatcher.get_call_template = call_from_kernel
    dispatcher.compile_now = compile_now
    REGISTRY[f"{function.__module__}.{function.__name__}"] = dispatcher
    return dispatcher  # type: ignore[no-any-return]


def device(function: Function) -> Function:
    """A part of kernels: called by kernels only, typed where it is called.

    Gives back numbers; an array only where it is nobody's (encoding.bits.bytes_at).
    """
    return _jit(function, inline="never")  # type: ignore[no-any-return]


def kernel_modules() -> Iterator[str]:
    """The modules of this package that define kernels, found by their text."""
    package = Path(__file__).parent
    for info in pkgutil.walk_packages([str(package)], prefix="mimir_ray."):
        path = package.joinpath(*info.name.split(".")[1:])
        source = path / "__init__.py" if info.ispkg else path.with_suffix(".py")
        if source.exists() and b"@kernel" in source.read_bytes() and info.name != __name__:
            yield info.name


def is_cached() -> bool:
    """Whether the machine code of all kernels of the modules imported so far seems to be on disk."""
    return all(Path(one._cache._cache_file._index_path).exists() for one in REGISTRY.values())


def load_imported() -> int:
    """Loads (or compiles) the kernels of all modules imported so far, so that no request waits for that.

    Then lets go of what only other kernels would need that were compiled with these as their parts. Returns how many
    there are.
    """
    for dispatcher in list(REGISTRY.values()):
        dispatcher.compile_now()
        for result in dispatcher.overloads.values():
            _pack_library(result.library)
    # What is here now stays: full collections need not walk it again and again.
    gc.collect()
    gc.freeze()
    return len(REGISTRY)


def _pack_library(library: Any) -> None:
    """Keeps a kernel's intermediate code as bytes, a tenth of what it takes parsed, until it is wanted."""
    module, library._shared_module = library._shared_module, None
    if module is not None:
        bitcode = module.as_bitcode()

        def unpacked() -> Any:
            if library._shared_module is None:
                library._shared_module = llvm.parse_bitcode(bitcode)
            return library._shared_module

        library._get_module_for_linking = unpacked


def warm_up(progress: Callable[[int, int, str], None] | None = None) -> int:
    """Compiles (or loads from the cache) every kernel of the package.

    Args:
        progress: called with (done, total, name) before each kernel.

    Returns the number of kernels.
    """
    for name in kernel_modules():
        importlib.import_module(name)
    for done, (name, dispatcher) in enumerate(sorted(REGISTRY.items())):
        if progress:
            progress(done, len(REGISTRY), name)
        dispatcher.compile_now()
    return len(REGISTRY)
