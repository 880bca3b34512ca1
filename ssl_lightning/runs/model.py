"""What a training on labels leaves behind: backbone, head, task and card in one `model.safetensors`.

The tensors are `backbone.*`, `head.*` and, where the features are normalised first, `norm.*`. The metadata has the
backbone's card, as `backbone.safetensors` has it, and `model`, a JSON object:

    {"task": {"node", "names", "statistics"}, "head": {"kind": "linear" or "task", "sizes": [D, K]}, "norm": bool,
     "scale": float, "stage": str, "readout": str where it is not the features}

A head of kind "task" is made by the task, and its sizes are D and the number of names.

Somebody else may have written it: it may name our own tasks, or one of a package that the user trusts, with plain
values, and no network that is larger than the tensors beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.config.allowed import shown
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.core.readouts import FEATURES, Readouts, check_names
from ssl_lightning.core.task import Task
from ssl_lightning.runs import card as cards
from ssl_lightning.runs.checkpoint import (
    MODEL,
    Pretrained,
    build_backbone,
    load_weights,
    read_safetensors,
    resolve_ckpt,
    save_atomic,
    untrained,
)
from ssl_lightning.runs.saving import save_safetensors

PARTS = ("backbone", "norm", "head")
MOST_BYTES = 50_000_000  # of the metadata
MOST_NAMES, LONGEST_NAME = 1_000_000, 10_000
LINEAR, OF_THE_TASK = "linear", "task"  # kinds of head
TRAIN_ONE = "stage=finetune or stage=linear leaves one"


class Model(nn.Module):
    """A network with a head, as a training on labels left it: inputs (B, ...) -> outputs (B, K).

    Args:
        backbone: inputs -> features (B, D), with `out_dim`.
        task: what labels mean, with its names.
        head: what the task reads of the backbone -> outputs.
        norm: of features before the head; None: none.
        scale: factor of features before the head.
        readout: what of the backbone the head reads, as `core.readouts` names it.

    Attributes:
        task: its `predict` and `probabilities` say what outputs mean.
        card: how the network is built and fed.
        transform: from an item (a file, an image) to an input; `load_model` sets it.
        predict: what it says of files, `model.predict(files)`; `load_model` sets it.
        stage: which stage trained it.

    >>> model = load_model("runs/byol-folder/finetune-folder")  # doctest: +SKIP
    >>> model(model.transform("a.jpg")[None]).shape, model.classes  # doctest: +SKIP
    (torch.Size([1, 2]), ['cat', 'dog'])
    """

    card: dict[str, Any]
    _read: nn.Module
    transform: Any
    predict: Any
    stage: str = ""

    def __init__(
        self,
        backbone: nn.Module,
        task: Task,
        head: nn.Module,
        norm: nn.Module | None = None,
        scale: float = 1.0,
        readout: str = FEATURES,
    ) -> None:
        super().__init__()
        self.backbone, self.task, self.head = backbone, task, head
        self.norm = norm if norm is not None else nn.Identity()
        self.scale, self.readout = scale, readout
        read = backbone if readout == FEATURES else Readouts(backbone, (readout,))
        object.__setattr__(self, "_read", read)  # whose weights are the backbone's: no second part of the network

    @property
    def classes(self) -> list[str]:
        """The names of the classes, labels or numbers, in the order of the outputs; of texts the characters."""
        return list(self.task.names)

    def forward(self, x: Any) -> Any:
        features = self.task.features(self._read, x)  # (B, D)
        if isinstance(features, Tensor):
            features = self.norm(features)
            features = features * self.scale if self.scale != 1 else features
        return self.head(features)  # (B, K)


def folded(model: Model) -> tuple[Tensor, Tensor] | None:
    """Weight (K, D) and bias (K,) of one linear layer that does what norm, scale and head do; None of other heads."""
    head, norm = model.head, model.norm
    if type(head) is not nn.Linear or model.readout != FEATURES or not isinstance(norm, nn.Identity | nn.BatchNorm1d):
        return None
    weight = head.weight.detach().double() * model.scale
    bias = torch.zeros(len(weight)).double() if head.bias is None else head.bias.detach().double()
    if isinstance(norm, nn.BatchNorm1d):
        if norm.running_mean is None or norm.running_var is None or norm.affine:
            return None
        weight = weight / (norm.running_var.double() + norm.eps).sqrt()
        bias = bias - weight @ norm.running_mean.double()
    return weight.float(), bias.float()


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_model(model: Model, card: Mapping[str, Any], folder: str | Path) -> Path:
    """Write `folder/model.safetensors`; equal models write equal bytes.

    Args:
        model: with the weights to keep.
        card: `backbone`, the config node that builds it, and how it is fed, plain values.
        folder: the run's.

    Raises:
        UserError: the file cannot be written.
    """
    card = {**card, "backbone": untrained(card["backbone"]), "out_dim": out_dim(model.backbone)}
    head: Any = model.head
    width = out_dim(model.backbone) if model.readout == FEATURES else head.in_features
    sizes = [width, len(model.task.names)]
    linear = type(head) is nn.Linear and [head.in_features, head.out_features] == sizes and head.bias is not None
    told = {
        "task": model.task.described(),
        "head": {"kind": LINEAR if linear else OF_THE_TASK, "sizes": sizes},
        "norm": not isinstance(model.norm, nn.Identity),
        "scale": model.scale,
        **({} if model.readout == FEATURES else {"readout": model.readout}),
        "stage": model.stage,
    }
    state = {
        f"{part}.{key}": value.detach().cpu().contiguous().clone()
        for part in PARTS
        for key, value in getattr(model, part).state_dict().items()
    }
    metadata = {"format": "pt", "card": json.dumps(card), "model": json.dumps(told)}
    return save_atomic(lambda path: save_safetensors(state, path, metadata), Path(folder) / MODEL)


# ---- reading ---------------------------------------------------------------------------------------------------------


def restored_model(ref: str | Path, trusted: Iterable[str] = ()) -> Model:
    """The model of a run of stage=finetune or stage=linear, or of a `model.safetensors`, in eval mode.

    Raises:
        UserError: there is no model, only a backbone say; or the file is damaged, or names what is not allowed.
    """
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn first are not kept
        return _restored(model_file(ref), tuple(trusted))


def _restored(path: Path, trusted: tuple[str, ...]) -> Model:
    state, metadata = read_safetensors(path)
    if "model" not in metadata or "card" not in metadata:
        raise UserError(f"{path} holds no head: no model of ours; {TRAIN_ONE}")
    told, card = _told(metadata["model"], str(path)), cards.parse(metadata["card"], str(path))
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in state.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise UserError(f"{path} has a tensor '{key[:100]}', which is of no part of a model; train it again")
        parts[part][name] = value
    held = Pretrained(str(path), parts["backbone"], card)
    backbone = build_backbone(card, trusted, str(path), parts["backbone"])
    load_weights(backbone, held)
    task = _task(told["task"], trusted, str(path))
    readout = told["readout"]
    width = out_dim(backbone) if readout == FEATURES else told["head"]["sizes"][0]
    head = _loaded(_head(told["head"], task, width, parts["head"], str(path)), parts["head"], "head", str(path))
    norm: nn.Module = nn.BatchNorm1d(width, affine=False) if told["norm"] else nn.Identity()
    norm = _loaded(norm, parts["norm"], "norm", str(path))
    model = Model(backbone, task, head, norm, told["scale"], readout)
    model.card, model.stage = card, told["stage"]
    return model.eval()


def model_file(ref: str | Path) -> Path:
    """Where the model of a reference lies. Raises UserError where it has none."""
    path = Path(ref).expanduser()
    if path.is_dir() and (path / MODEL).is_file():
        return path / MODEL
    if path.suffix == ".safetensors" and path.is_file():
        return path
    if not str(ref).startswith(("timm:", "torchvision:")):
        resolve_ckpt(ref)  # what is not there, or cannot be read, is told as everywhere
    raise UserError(f"{ref} has a backbone and no head, so it cannot tell what it sees; {TRAIN_ONE}")


def has_model(ref: str | Path) -> bool:
    """Does a reference hold a model, and not a backbone alone? Reads the head of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(model_file(ref), framework="pt") as file:
            metadata = file.metadata() or {}
    except (UserError, SafetensorError, OSError):
        return False
    return "model" in metadata and "card" in metadata


def _told(text: str, ref: str) -> dict[str, Any]:
    """What the metadata say of a model, with plain values of the right kinds."""
    what = f"the model in {ref}"
    if len(text) > MOST_BYTES:
        raise UserError(f"what {ref} says of its model is {len(text)} characters long; train it again")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"what {ref} says of its model is not JSON; train it again") from error
    head = told.get("head") if isinstance(told, dict) else None
    if not isinstance(head, dict) or not isinstance(told.get("task"), dict):
        raise UserError(f"{what} does not say its task and its head; train it again")
    if head.get("kind") not in (LINEAR, OF_THE_TASK) or not _are_sizes(head.get("sizes")):
        raise UserError(f"{what} has a head that is not valid: {shown(head)}")
    scale, stage = told.get("scale", 1.0), told.get("stage") or ""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise UserError(f"{what} has a scale that is not a number: {shown(scale)}")
    if not isinstance(stage, str) or not stage.isprintable() or not isinstance(told.get("norm", False), bool):
        raise UserError(f"{what} has a stage or a norm that is not valid; train it again")
    check_names([told.get("readout", FEATURES)], f"the readout of {what}")
    kept = {"norm": told.get("norm", False), "scale": float(scale), "readout": told.get("readout", FEATURES)}
    return {"task": told["task"], "head": head, "stage": stage, **kept}


def _are_sizes(sizes: Any) -> bool:
    right = isinstance(sizes, list) and len(sizes) == 2
    return right and all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= cards.LARGEST for n in sizes)


def _task(described: Mapping[str, Any], trusted: Sequence[str], ref: str) -> Task:
    """The task as it was when the model was written."""
    what, names, statistics = f"the model in {ref}", described.get("names"), described.get("statistics", {})
    fits = isinstance(names, list) and len(names) <= MOST_NAMES
    if not fits or not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names or ()):
        raise UserError(f"{what} has names of classes that are no names; train it again")
    cards.check_plain(described.get("node"), what)
    task: Task = cards.task_of(described.get("node"), trusted, ref)
    buffers = dict(task.named_buffers())
    if not isinstance(statistics, dict) or set(statistics) != set(buffers):
        raise UserError(f"{what} has other statistics than its task; train it again")
    if not all(_are_numbers(value) for value in statistics.values()):
        raise UserError(f"{what} has statistics that are no numbers; train it again")
    try:
        task.restore({**described, "names": names, "statistics": statistics})
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # lists of unequal lengths, say
        raise UserError(f"{what} has statistics that are no numbers; train it again") from error
    task.node = dict(described["node"])
    return task.eval()


def _are_numbers(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth < 4 and all(_are_numbers(item, depth + 1) for item in value)
    return isinstance(value, int | float)


def _head(told: Mapping[str, Any], task: Task, width: int, state: Mapping[str, Tensor], ref: str) -> nn.Module:
    """The head with random weights, no larger than those that came with it."""
    numbers = sum(value.numel() for value in state.values())
    with cards.no_larger(len(state), numbers):
        if told["kind"] == OF_THE_TASK:
            return task.head(width)
        wanted = [width, len(task.names)]
        if told["sizes"] != wanted or wanted[0] * wanted[1] > numbers:  # asked before: no memory is taken for it
            raise UserError(f"the model in {ref} has a head of {told['sizes']}, and needs one of {wanted}")
        return nn.Linear(*told["sizes"])


def _loaded(module: nn.Module, state: Mapping[str, Tensor], what: str, ref: str) -> nn.Module:
    """A part with its weights, all of them and no others. Raises UserError where they do not fit."""
    own = module.state_dict()
    odd = sorted(own.keys() ^ state.keys()) or sorted(k for k, v in own.items() if v.shape != state[k].shape)
    if odd:
        raise UserError(f"{ref}: the {what}'s '{odd[0][:100]}' is missing, left over or of another shape")
    bad = sorted(k for k, v in state.items() if v.is_floating_point() and not bool(v.isfinite().all()))
    if bad:
        raise UserError(f"{ref} holds weights that are not finite: '{what}.{bad[0][:100]}'; train it again")
    module.load_state_dict(dict(state))
    return module
