"""Pickles: reads dicts, lists, text, numbers and NumPy arrays out of a pickle, without executing it.

The instructions are interpreted here. What is called for in a pickle is compared with the few names by which arrays are
stored, and is never imported. Any other name, and any other way to make an object, is refused.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ssl_core.data import clean_names
from ssl_core.data.items import PackError

_MAX_INSTRUCTIONS = 2_000_000
_SPARE_BYTES = 2**20
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytearray"): "bytes",
    ("__builtin__", "bytearray"): "bytes",
}
_DTYPES = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"))
_KEYS = (str, bytes, int)  # hashing others may take long
_MAX_KEY = 2**32  # greater numbers may be chosen so that their hashes are equal
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset(("PROTO", "FRAME"))
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)


def load(file: IO[bytes], size: int) -> Any:
    """Return the value of the pickle, whose bytes are `size`. Raises PackError."""
    machine = _Machine(size)
    file.seek(0)
    bounded: Any = _Bounded(file, size)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if count > _MAX_INSTRUCTIONS:
                raise _refuse("has too many instructions")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except (PackError, MemoryError):
        raise
    except Exception as error:  # damaged instructions raise many types
        raise PackError("corrupt_archive", "A pickle is damaged.") from error
    raise PackError("truncated_archive", "A pickle is truncated.")


class _Bounded:
    """Limits a read to the bytes that are there, for which memory is taken before they are read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self.readline = file.readline
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size - self._file.tell()))


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(slots=True)
class _Dtype:
    """As `numpy.dtype` is pickled: a name, and then a state with the order of bytes."""

    name: str
    order: str = "<"

    def to_numpy(self) -> np.dtype[Any]:
        if self.name not in _DTYPES:
            raise _refuse("holds an array of an unsupported type")
        return np.dtype((self.order if self.order in "<>" else "") + self.name)


@dataclass(slots=True)
class _Array:
    """As an array is pickled: empty, and then a state with its shape, type and bytes."""

    values: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint8))


class _Machine:
    """The stack and the memo of a pickle. size: bytes of the pickle, a multiple of which it may copy."""

    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._budget = 4 * size + _SPARE_BYTES

    def pop(self) -> Any:
        """Return the top of the stack."""
        top = self._stack.pop()
        return top.values if isinstance(top, _Array) else top

    def run(self, name: str, argument: Any) -> None:
        """Run one instruction. Raises PackError for those that are not allowed."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self._stack[-_TUPLES[name] :] = [tuple(self._stack[-_TUPLES[name] :])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name not in _IGNORED:
            self._change(name, argument)

    def _change(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "MARK":
                self._marks.append(len(stack))
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "POP":
                stack.pop()
            case "TUPLE":
                stack.append(tuple(self._take_marked()))
            case "LIST":
                stack.append(self._take_marked())
            case "DICT":
                stack.append(_to_dict(self._take_marked()))
            case "APPEND":
                value = stack.pop()
                _require(stack[-1], list).append(value)
            case "APPENDS":
                values = self._take_marked()
                _require(stack[-1], list).extend(values)
            case "SETITEM":
                pair = [stack.pop(), stack.pop()][::-1]
                _require(stack[-1], dict).update(_to_dict(pair))
            case "SETITEMS":
                values = self._take_marked()
                _require(stack[-1], dict).update(_to_dict(values))
            case "GLOBAL":
                stack.append(_find_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_find_global(module, attribute))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(_require(function, _Global).name, _require(arguments, tuple)))
            case "BUILD":
                state = stack.pop()
                self._build(stack[-1], _require(state, tuple))
            case _:
                raise _refuse(f"has the instruction {name}")

    def _take_marked(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        match function, arguments:
            case "reconstruct", (_Global(name="ndarray"), *_):
                return _Array()
            case "dtype", (str() | bytes() as name, *_):
                return _Dtype(_to_text(name).lstrip("<>|="))
            case "encode", (str() as text, "latin1" | "latin-1"):
                self._spend(len(text))
                return text.encode("latin-1")
            case "bytes", ():
                return b""
            case "bytes", (bytes() as data,):
                return data
            case "scalar", (_Dtype() as dtype, str() | bytes() as data):
                return np.frombuffer(self._to_bytes(data), dtype.to_numpy())[0].item()
            case "frombuffer", (str() | bytes() | bytearray() as data, _Dtype() as dtype, tuple() as shape, "C"):
                return _Array(self._make_array(data, dtype, shape, False))
        raise _refuse(f"calls {function} in an unusual way")

    def _build(self, target: Any, state: tuple[Any, ...]) -> None:
        match target, state:
            case _Dtype(), (_, str() | bytes() as order, *_):
                target.order = _to_text(order)
            case _Array(), (_, tuple() as shape, _Dtype() as dtype, fortran, str() | bytes() | bytearray() as data):
                target.values = self._make_array(data, dtype, shape, bool(fortran))
            case _:
                raise _refuse("gives an object a state")

    def _make_array(self, data: Any, dtype: _Dtype, shape: tuple[Any, ...], fortran: bool) -> NDArray[Any]:
        values = np.frombuffer(self._to_bytes(data), dtype.to_numpy())
        return values.reshape([_require(side, int) for side in shape], order="F" if fortran else "C")

    def _to_bytes(self, data: str | bytes | bytearray) -> bytes | bytearray:
        """Return the bytes; Python 2 stored them as text."""
        if not isinstance(data, str):
            return data
        self._spend(len(data))
        return data.encode("latin-1")

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise _refuse("copies its data many times")


def _find_global(module: Any, attribute: Any) -> _Global:
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise _refuse("has instructions that do not fit its values")
    name = _GLOBALS.get((module, attribute))
    if name is None:
        called = clean_names.clean_text(f"{module[:100]}.{attribute[:100]}")
        raise _refuse(f"calls for {called}, which is no part of an array")
    return _Global(name)


def _to_dict(values: list[Any]) -> dict[Any, Any]:
    keys = [key for key in values[::2] if isinstance(key, _KEYS) and (not isinstance(key, int) or abs(key) < _MAX_KEY)]
    if 2 * len(keys) != len(values):
        raise _refuse("has a dict with keys that are neither text nor numbers")
    return dict(
        zip(keys, (value.values if isinstance(value, _Array) else value for value in values[1::2]), strict=True)
    )


def _require(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _refuse("has instructions that do not fit its values")
    return value


def _to_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _refuse(reason: str) -> PackError:
    return PackError("unsafe_pickle", f"A pickle {reason}; only arrays, lists, text and numbers are read from pickles.")
