"""A reader for checkpoints that hold more than tensors and plain values: nothing in them is called or imported.

`torch.load(weights_only=True)` refuses a file for a single `argparse.Namespace` or numpy number beside its weights.
Here whatever a file names becomes a `Thing`: a name, and what the file says about it. Only names of a closed list
(`harmless`) are read at all. No class of the file is imported, no function of its choice is called; tensors are made by
this module from the bytes in the file, within the bounds of those bytes.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ssl_lightning.core.bounded import Allowance, Bounded
from ssl_lightning.runs.harmless import NUMBERS, is_harmless

_KEYS = (str, int, float, bytes, type(None), torch.dtype, torch.device)


class Refused(pickle.UnpicklingError):
    """The file names something that is not on the list."""


class Name:
    """What a file names, as text."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class Thing:
    """An object of a file: which class it says it is of, its arguments, its state, its items. It does nothing."""

    __slots__ = ("args", "items", "path", "state")

    def __init__(self, path: str, args: tuple[Any, ...] = ()) -> None:
        self.path, self.args = path, args
        self.state: Any = None
        self.items: dict[Any, Any] = {}


class Storage(NamedTuple):
    dtype: torch.dtype
    bytes: torch.UntypedStorage


def _tensor(reader: Unpickler, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Tensor:
    """A tensor over the bytes of a storage, all of whose elements lie within them."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    kind = dtype if isinstance(dtype, torch.dtype) else storage.dtype
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor without a shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if 0 not in size else -1
    if (last + 1) * kind.itemsize > storage.bytes.nbytes():
        raise pickle.UnpicklingError("a tensor beyond its storage")
    reader.allowance.repeat(math.prod(size), storage.bytes.nbytes() // kind.itemsize)
    return torch.empty(0, dtype=kind).set_(storage.bytes, offset, tuple(size), tuple(stride))


def _viewed(tensor: Tensor, signs: Any = None, *_: Any) -> Tensor:
    """With what torch keeps beside a tensor: is it to be read as conjugate, or negated?"""
    signs = signs if isinstance(signs, dict) else {}
    tensor = torch._conj(tensor) if signs.get("conj") is True and tensor.is_complex() else tensor
    return torch._neg_view(tensor) if signs.get("neg") is True else tensor


def _encoded(text: Any, coding: Any = "latin1") -> bytes:
    if not (isinstance(text, str) and coding in ("latin1", "latin-1")):
        raise pickle.UnpicklingError("a text that is no bytes")
    return text.encode("latin1")


def _bytes(given: Any = b"", coding: Any = "latin1") -> bytearray:
    return bytearray(given if isinstance(given, bytes) else _encoded(given, coding))


def _is_key(value: Any) -> bool:
    """May it stand in a mapping? Integers of the same hash, and tuples within tuples, would take for ever there."""
    parts = value if isinstance(value, tuple) else (value,)
    return len(parts) <= 8 and all(
        isinstance(part, _KEYS) and not (isinstance(part, int) and abs(part) >= 2**60) for part in parts
    )


def _is_metadata(state: Any) -> bool:
    """What torch keeps at a state_dict: {"_metadata": {layer: {"version": ...}}}."""
    layers = state.get("_metadata") if isinstance(state, dict) and len(state) == 1 else None
    return isinstance(layers, dict) and all(isinstance(layer, dict) for layer in layers.values())


# The few names that mean something here. Each is a function of this module, or of plain values alone.
_MADE: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": lambda reader, *args: _tensor(reader, args[0], args[1], args[2], args[3]),
    "torch._utils._rebuild_tensor_v2": lambda reader, *args: _viewed(
        _tensor(reader, args[0], args[1], args[2], args[3]), *args[6:]
    ),
    "torch._utils._rebuild_tensor_v3": lambda reader, *args: _viewed(
        _tensor(reader, args[0], args[1], args[2], args[3], args[6]), *args[7:]
    ),
    "torch._utils._rebuild_parameter": lambda reader, *args: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda reader, *args: args[0],
    "torch.nn.parameter.Parameter": lambda reader, *args: args[0] if args else None,
    "torch.Size": lambda reader, sizes=(): torch.Size(sizes),
    "torch.device": lambda reader, *args: torch.device(*args),
    "collections.OrderedDict": lambda reader, pairs=(): OrderedDict(reader.kept(pairs)),
    "collections.Counter": lambda reader, counts=(): Counter(dict(reader.kept(counts))),
    "builtins.set": lambda reader, items=(): set(reader.keys(items)),
    "builtins.complex": lambda reader, *args: complex(*args),
    "builtins.bytearray": lambda reader, *args: _bytes(*args),
    "_codecs.encode": lambda reader, *args: _encoded(*args),
}


class Unpickler(Bounded):
    """Python's own reader of pickles, with each of its steps that could run something replaced.

    Args:
        strict: refuse whatever torch itself would not read as plain values: then nothing is read as text or left out.
    """

    stack: list[Any]
    steps: ClassVar[dict[int, Callable[..., None]]] = dict(Bounded.steps)

    def __init__(
        self,
        file: IO[bytes],
        size: int,
        storage_of: Callable[[tuple[Any, ...]], Storage] | None = None,
        allowance: Allowance | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(file, size, allowance, encoding="latin1")
        self.storage_of, self.strict = storage_of, strict

    def inexact(self) -> None:
        """What follows is read as text, or left out."""
        if self.strict:
            raise Refused("more than plain values")

    def keys(self, items: Any) -> Iterator[Any]:
        for item in items:
            if _is_key(item):
                yield item
            else:
                self.inexact()

    def kept(self, pairs: Any) -> Iterator[tuple[Any, Any]]:
        for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
            if _is_key(key):
                yield key, value
            else:
                self.inexact()

    def call(self, named: Any, args: Any) -> Any:
        if not isinstance(named, Name) or not isinstance(args, tuple):
            raise pickle.UnpicklingError("a call of what is no name")
        if named.path == "torch._tensor._rebuild_from_type_v2":
            self.inexact()
            return self.call(args[0], args[2])
        if named.path not in _MADE:
            self.inexact()
            return Thing(named.path, args)
        self.allowance.copy(args, *args)
        return _MADE[named.path](self, *args)

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module.replace('__builtin__', 'builtins').replace('copy_reg', 'copyreg')}.{name}"
        kind = re.fullmatch(r"torch(?:\.cuda|\.storage)?\.(\w+)Storage", path)
        if kind and kind[1] in NUMBERS:
            return NUMBERS[kind[1]]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if not is_harmless(path):
            raise Refused(path if path.isprintable() and len(path) < 100 else "an object without a plain name")
        if path not in _MADE:
            self.inexact()
        return Name(path)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage") and self.storage_of:
            return self.storage_of(pid)
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":  # a class, beside its source
            return pid[1]
        raise pickle.UnpicklingError("a reference to what is no storage")

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self.call(klass, tuple(args)))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # arguments by name
        self.inexact()
        self.load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        held = self.stack[-1]
        if isinstance(held, Thing):
            held.state = state
        elif isinstance(held, OrderedDict) and _is_metadata(state):
            held._metadata = state["_metadata"]  # type: ignore[attr-defined]
        else:
            self.inexact()

    def load_appends(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)
        else:
            self.inexact()

    def load_append(self) -> None:
        self._marked(1)
        self.load_appends()

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is set:
            self.stack[-1].update(self.keys(items))
        else:
            self.inexact()

    def load_setitems(self) -> None:
        items = self.pop_mark()
        held = self.stack[-1]
        held = held.items if isinstance(held, Thing) else held
        if type(held) in (dict, OrderedDict, Counter):
            for key, value in self.kept(zip(items[::2], items[1::2])):
                held[key] = value
        else:
            self.inexact()

    def load_setitem(self) -> None:
        self._marked(2)
        self.load_setitems()

    def _marked(self, count: int) -> None:
        """As if there had been a mark before the last values."""
        last = self.stack[-count:]
        del self.stack[-count:]
        self.metastack.append(self.stack)
        self.stack = last

    def load_frozenset(self) -> None:
        self.append(frozenset(self.keys(self.pop_mark())))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(self.kept(zip(items[::2], items[1::2]))))

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def refuse(self) -> None:
        raise pickle.UnpicklingError("a pickle of a kind that no checkpoint is")

    for _name, _step in {
        "REDUCE": load_reduce,
        "NEWOBJ": load_reduce,
        "NEWOBJ_EX": load_newobj_ex,
        "BUILD": load_build,
        "APPEND": load_append,
        "APPENDS": load_appends,
        "ADDITEMS": load_additems,
        "SETITEM": load_setitem,
        "SETITEMS": load_setitems,
        "FROZENSET": load_frozenset,
        "DICT": load_dict,
        "BYTEARRAY8": load_bytearray8,
        **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"), refuse),
    }.items():
        steps[getattr(pickle, _name)[0]] = _step
    del _name, _step
