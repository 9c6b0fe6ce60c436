"""The arrays inside a pickled dictionary, read without running anything.

CIFAR-10 and the downsampled ImageNet are released as pickles. Unpickling runs whatever a file asks for, so
this reader does not unpickle: it walks the opcodes that the standard library's disassembler finds (which
executes nothing) over a stack of its own, knows the few opcodes of which dictionaries of numeric arrays
consist, and gives meaning to five names, none of which it looks up or imports. Any other opcode or name is
refused.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowzoo.errors import IntegrityError

__all__ = ["read_pickled_arrays"]

_NUMERIC = re.compile(r"[uif][1248]|b1")
_MARK = object()
_NDARRAY = object()

_MAX_OPCODES = 500_000  # the largest official batch has 128,116 labels, an opcode each
_MAX_ENTRIES = 100
_MAX_AXES = 8
_MAX_LENGTH = 1 << 40


class _Refused(Exception):
    """The file holds something that this reader does not know."""


def _shown(value: Any) -> str:
    """A value for an error; tuples that hold each other would take for ever to write out."""
    return repr(value[:60]) if isinstance(value, str | bytes) else f"of type {type(value).__name__}"


class _Dtype:
    """A NumPy type under construction: its code, such as ``u1``, and then its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise _Refused(f"an array of type {_shown(code)}, which is not a plain number")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> int:
        """Sets the byte order; returns 0, as it keeps no bytes."""
        order = state[1]
        if order not in ("|", "<", ">", "="):
            raise _Refused(f"a byte order {_shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)
        return 0


class _Array:
    """An array under construction; the pickle creates it empty and fills it in later."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None

    def build(self, state: Any) -> int:
        """Fills the array in; returns its size in bytes."""
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Dtype) or fortran not in (0, False):
            raise _Refused("an array that is not in C order")
        # Multiplying anything but small whole numbers could take for ever, or all memory.
        sound = isinstance(shape, tuple) and len(shape) <= _MAX_AXES
        if not sound or any(type(size) is not int or not 0 <= size <= _MAX_LENGTH for size in shape):
            raise _Refused("an array of a shape that is not a few whole numbers")
        if not isinstance(data, str | bytes) or len(data) != math.prod(shape) * kind.dtype.itemsize:
            raise _Refused(f"an array of shape {shape} without as many bytes")
        content = data.encode("latin-1") if isinstance(data, str) else data
        self.values = np.frombuffer(content, dtype=kind.dtype).reshape(shape)
        return len(content)


class _Function:
    """A name that a pickle may call, and what is done instead of calling it."""

    def __init__(self, replacement: Callable[..., Any]) -> None:
        self.replacement = replacement


def _encoded(text: Any, encoding: Any) -> str:
    """The text itself: it is encoded where it fills an array, so that no file can ask for many copies."""
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text encoded as {_shown(encoding)}")
    return text


_NAMES: dict[str, Any] = {
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _Function(_Dtype),
    "numpy.core.multiarray _reconstruct": _Function(_Array),
    "numpy._core.multiarray _reconstruct": _Function(_Array),
    "_codecs encode": _Function(_encoded),
}

_STRINGS = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_PUSH = _STRINGS | _BYTES | _NUMBERS
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "STOP"}


class _Machine:
    """The stack and memo of a pickle, for data only."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.bytes_left = 0

    def run(self, content: bytes) -> Any:
        self.bytes_left = len(content)  # each array's bytes stand in the file once
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if number >= _MAX_OPCODES:
                raise _Refused(f"more than {_MAX_OPCODES:,} opcodes")
            self.step(opcode.name, argument)
        if len(self.stack) != 1:
            raise _Refused("an unfinished value")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name not in _IGNORED:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise _Refused(f"the opcode {name}")
            handler(self, argument)

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise _Refused("a value without a beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def look_up(self, name: str) -> None:
        if name not in _NAMES:
            raise _Refused(f"the name {_shown(name.replace(' ', '.'))}")
        self.stack.append(_NAMES[name])

    def stack_global(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise _Refused("a name that is no text")
        self.look_up(f"{module} {attribute}")

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Function):
            raise _Refused("a call of something that is not a function")
        self.stack.append(function.replacement(*arguments))

    def build(self, _: Any) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if not isinstance(value, _Dtype | _Array) or not isinstance(state, tuple):
            raise _Refused("state for something that is no array")
        self.bytes_left -= value.build(state)
        if self.bytes_left < 0:
            raise _Refused("arrays that share their bytes")

    def append_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Refused("items for something that is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise _Refused("entries for something that is no dictionary")
        # The hash of nested tuples takes for ever, and so do many numbers of one hash.
        if any(type(key) not in (str, bytes, int) for key in items[::2]):
            raise _Refused("a dictionary with a key that is neither text nor a whole number")
        if len(self.stack[-1]) + len(items) // 2 > _MAX_ENTRIES:
            raise _Refused(f"a dictionary of more than {_MAX_ENTRIES} entries")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "APPEND": lambda machine, _: machine.append_items([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_to_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": _Machine.look_up,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def read_pickled_arrays(content: bytes, where: Path) -> dict[str, NDArray[Any]]:
    """Returns the numeric arrays, and the lists of whole numbers, among the values of a pickled dictionary.

    Args:
        content: A pickle of protocol 2 to 4, as Python 2 and 3 write it.
        where: The file, for the error.

    Returns:
        The arrays by key, read-only, lists as int64; values of other kinds are left out.

    Raises:
        IntegrityError: if the file holds anything but plain data; nothing in it has been run.
    """
    try:
        value = _Machine().run(content)
        if not isinstance(value, dict):
            raise _Refused(f"a {type(value).__name__} where a dictionary is due")
    except _Refused as error:
        raise IntegrityError(
            f"{where} holds {error}. Expected a dictionary of numeric arrays and nothing else; the file was "
            "not unpickled and nothing in it was run. Get it again from its official page."
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise IntegrityError(
            f"{where} is not a complete pickle: {error}. Get the file again from its official page."
        ) from error
    arrays = {_text(key): _array(item) for key, item in value.items()}
    return {key: array for key, array in arrays.items() if array is not None}


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _array(item: Any) -> NDArray[Any] | None:
    """A value as an array; None if it is neither one nor a list of whole numbers that int64 holds."""
    if isinstance(item, _Array):
        return item.values
    if (
        isinstance(item, list)
        and item
        and all(type(number) is int and abs(number) < 1 << 63 for number in item)
    ):
        return np.array(item, dtype=np.int64)
    return None
