"""A reader for checkpoints that hold more than tensors and plain values: nothing in them is called or imported.

`torch.load(weights_only=True)` refuses a file for a single `argparse.Namespace` or numpy number beside its weights.
Here whatever a file names becomes a `Thing`: a name, and what the file says about it. Only names of a closed list
(`HARMLESS`) are read at all. No class of the file is imported, no function of its choice is called; tensors are made by
this module from the bytes in the file, within the bounds of those bytes.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

# What a file may name: these and, where a name ends in a dot, all below it. Classes of settings, numbers, containers,
# modules, and the things that training programs leave in their checkpoints. None of them is imported.
_HARMLESS = """argparse.Namespace types.SimpleNamespace collections. datetime. pathlib. decimal.Decimal uuid.UUID
_codecs.encode copyreg._reconstructor functools.partial builtins.set builtins.frozenset builtins.list builtins.dict
builtins.tuple builtins.complex builtins.bytearray builtins.slice builtins.range builtins.int builtins.float
builtins.str builtins.bool builtins.bytes builtins.object numpy. torch.nn. torch.optim. torch.distributed. torch.Size
torch.device torch.dtype torch.Tensor torch.Generator torch.torch_version.TorchVersion torch.utils.data. torch._utils.
torch._tensor._rebuild_from_type_v2 torch.serialization._get_layout torch.amp. torch.cuda.amp. __main__. lightning.
pytorch_lightning. lightning_fabric. lightning_utilities. torchmetrics. omegaconf. hydra. yacs. easydict. addict. box.
munch. ml_collections. fvcore. iopath. detectron2. mmcv. mmengine. mmpretrain. mmselfsup. mmcls. vissl. classy_vision.
apex. fairseq. lightly. lightly_train. solo. stable_pretraining. timm. torchvision. open_clip. transformers. dinov2.
ssl_lightning. PIL. utils. models. src."""
HARMLESS = tuple(_HARMLESS.split())

# Names of storages, and the kinds of their numbers.
NUMBERS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
_KEYS = (str, int, float, bytes, type(None))


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


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Tensor:
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
    return torch.empty(0, dtype=kind).set_(storage.bytes, offset, tuple(size), tuple(stride))


def _encoded(text: Any, coding: Any = "latin1") -> bytes:
    if not (isinstance(text, str) and coding in ("latin1", "latin-1")):
        raise pickle.UnpicklingError("a text that is no bytes")
    return text.encode("latin1")


def _ordered(args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    pairs = args[0] if args and isinstance(args[0], list | tuple) else ()
    return OrderedDict((key, value) for key, value in pairs if isinstance(key, _KEYS))


# The few names that mean something here. Each is a function of this module.
_MADE: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": lambda args: _tensor(*args[:4]),
    "torch._utils._rebuild_tensor_v2": lambda args: _tensor(*args[:4]),
    "torch._utils._rebuild_tensor_v3": lambda args: _tensor(args[0], args[1], args[2], args[3], args[6]),
    "torch._utils._rebuild_parameter": lambda args: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
    "torch._tensor._rebuild_from_type_v2": lambda args: _call(args[0], args[2]),
    "torch.nn.parameter.Parameter": lambda args: args[0] if args else None,
    "torch.Size": lambda args: tuple(args[0]) if args else (),
    "collections.OrderedDict": _ordered,
    "builtins.set": lambda args: {item for item in (args[0] if args else ()) if isinstance(item, _KEYS)},
    "_codecs.encode": lambda args: _encoded(*args),
}


def _call(named: Any, args: Any) -> Any:
    if not isinstance(named, Name) or not isinstance(args, tuple):
        raise pickle.UnpicklingError("a call of what is no name")
    return _MADE[named.path](args) if named.path in _MADE else Thing(named.path, args)


class _Bounded:
    """A file of which no more is asked for than it holds: a text in it may say that it is as long as the memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise EOFError
        return self.file.read(count)


_PYTHONS: Any = vars(pickle)["_Unpickler"]  # the reader in Python, whose steps can be replaced


class Unpickler(_PYTHONS):  # type: ignore[misc]
    """Python's own reader of pickles, with each of its steps that could run something replaced."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PYTHONS.dispatch)

    def __init__(
        self, file: IO[bytes], size: int, storage_of: Callable[[tuple[Any, ...]], Storage] | None = None
    ) -> None:
        super().__init__(_Bounded(file, size), encoding="latin1")
        self.storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module.replace('__builtin__', 'builtins').replace('copy_reg', 'copyreg')}.{name}"
        kind = re.fullmatch(r"torch(?:\.cuda|\.storage)?\.(\w+)Storage", path)
        if kind and kind[1] in NUMBERS:
            return NUMBERS[kind[1]]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if not re.fullmatch(r"[\w.]+", path) or not any(_under(path, known) for known in HARMLESS):
            raise Refused(path if path.isprintable() and len(path) < 100 else "an object without a plain name")
        return Name(path)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage") and self.storage_of:
            return self.storage_of(pid)
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":  # a class, beside its source
            return pid[1]
        raise pickle.UnpicklingError("a reference to what is no storage")

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_call(klass, tuple(args)))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # arguments by name
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Thing):
            self.stack[-1].state = state

    def load_appends(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def load_append(self) -> None:
        item = self.stack.pop()
        if type(self.stack[-1]) is list:
            self.stack[-1].append(item)

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is set:
            self.stack[-1].update(item for item in items if isinstance(item, _KEYS))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        held = self.stack[-1]
        held = held.items if isinstance(held, Thing) else held
        if type(held) in (dict, OrderedDict):
            held.update((key, value) for key, value in zip(items[::2], items[1::2]) if isinstance(key, _KEYS))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.metastack.append(self.stack)
        self.stack = [key, value]
        self.load_setitems()

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(frozenset())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({key: value for key, value in zip(items[::2], items[1::2]) if isinstance(key, _KEYS)})

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    def refuse(self) -> None:
        raise pickle.UnpicklingError("a pickle of a kind that no checkpoint is")

    for _name, _step in {
        "REDUCE": load_reduce,
        "NEWOBJ": load_newobj,
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
        dispatch[getattr(pickle, _name)[0]] = _step
    del _name, _step


def _under(path: str, known: str) -> bool:
    return path.startswith(known) if known.endswith(".") else path == known


def tensor_of(thing: Thing) -> Tensor | None:
    """The numbers of a numpy array that a file holds, or None for what is none."""
    match (thing.path.rpartition(".")[2], thing.args, thing.state):
        case ("_reconstruct", _, (_, tuple(shape), Thing() as kind, False, bytes(content))):
            return _array(content, kind, shape)
        case ("_frombuffer", (bytes(content), Thing() as kind, tuple(shape), "C"), _):
            return _array(content, kind, shape)
    return None


def _array(content: bytes, kind: Thing, shape: tuple[Any, ...]) -> Tensor | None:
    kinds = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "i4": "Int", "u1": "Byte", "b1": "Bool"}
    name, order = kind.args[0] if kind.args else None, kind.state[1] if isinstance(kind.state, tuple) else "<"
    if name not in kinds or order not in ("<", "|", "=") or not all(type(n) is int and n > 0 for n in shape):
        return None
    flat = torch.frombuffer(bytearray(content), dtype=NUMBERS[kinds[name]])
    return flat.reshape(shape) if flat.numel() == math.prod(shape) else None
