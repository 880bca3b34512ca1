"""Files that hold weights: atomic saving, safe loading, and the backbone on its own.

A backbone travels as one `backbone.safetensors`: its weights, and in the file's metadata a *card*, a small JSON object
with everything that is needed to build it again (`{"backbone": {"_target_": ..., ...}, "out_dim", "image_size", "mean",
"std", "method", "data"}`). `resolve_ckpt` reads any reference a user may write after `ckpt=`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.core.launch import is_main_process
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.runs import card as cards
from ssl_lightning.runs import foreign, lookalike
from ssl_lightning.runs.adopted import adopted
from ssl_lightning.runs.folder import find_run
from ssl_lightning.runs.judged_node import judged_node
from ssl_lightning.runs.saving import existing, fallen_back, load, load_newest, previous, save_safetensors
from ssl_lightning.runs.saving import save_atomic as save_atomic

FILE = "backbone.safetensors"
MODEL = "model.safetensors"  # of a run that trained on labels, see `runs.model`
# Where a folder without such a file may have its weights: a model's, or as transformers writes them.
FOLDER_FILES = (MODEL, "pytorch_model.bin")


@dataclass(frozen=True)
class Pretrained:
    """What a `ckpt=` stands for: the state, the card that builds its backbone (None: unknown), its run folder."""

    ref: str
    state: dict[str, Tensor]
    card: dict[str, Any] | None = None
    run: Path | None = None


def untrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's config node without the weights it may name: ours come from a file, no others are to be fetched."""
    return dict(node) | {key: off for key, off in (("pretrained", False), ("weights", None)) if key in node}


def save_backbone(backbone: nn.Module, config: Mapping[str, Any], folder: str | Path, **card: Any) -> Path:
    """Write `folder/backbone.safetensors`, the weights and the card, for `load_backbone`.

    Args:
        backbone: the network.
        config: how it is built, `_target_` and arguments, plain values.
        folder: where to; it is made where it is not there.
        **card: image_size, mean, std, method, data and whatever else is worth knowing, as plain JSON values.

    Returns:
        The file's path.

    Raises:
        UserError: the network has no width, or the file cannot be written.

    >>> from ssl_lightning.models import ConvNetSmall
    >>> node = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 8}
    >>> save_backbone(ConvNetSmall(8), node, "mine", image_size=32).name
    'backbone.safetensors'
    """
    whole = {"backbone": untrained(config), "out_dim": out_dim(backbone), **card}
    state = {key: value.detach().cpu().contiguous().clone() for key, value in backbone.state_dict().items()}
    metadata = {"format": "pt", "card": json.dumps(whole)}
    return save_atomic(lambda path: save_safetensors(state, path, metadata), Path(folder) / FILE)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(state, metadata) of a .safetensors file. Raises UserError where it is none."""
    try:
        with safe_open(existing(path), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            return state, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated, damaged or not a safetensors file; export it again") from error


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """(state, card or None) of a .safetensors file; of a model's the backbone."""
    state, metadata = read_safetensors(path)
    if "model" in metadata and "card" in metadata:
        state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return state, cards.parse(metadata["card"], str(path)) if "card" in metadata else None


def resolve_ckpt(ref: str | Path) -> Pretrained:
    """Read a run folder, a Lightning checkpoint, a safetensors or state_dict file, `timm:<name>`, `torchvision:<name>`.

    Raises UserError when there is nothing to read or what is there cannot be read.
    """
    ref = str(ref)
    for source, fetch in (("timm:", _from_timm), ("torchvision:", _from_torchvision)):
        if ref.startswith(source):
            return fetch(ref.removeprefix(source))
    path, run = Path(ref).expanduser(), find_run(ref)
    folder = path.is_dir() and path.suffix != ".ckpt"  # a sharded checkpoint is a folder, too
    if folder:
        path = _file_in(path)
    if path.suffix == ".safetensors":
        state, card = _load_safetensors(path)
        return Pretrained(ref, state, card, run)
    content, used = load_newest(path, load) if folder else (load(path), path)
    if used != path and is_main_process():
        print(fallen_back(path, used), file=sys.stderr)
    state = _state_in(content, path)
    ours = isinstance(content, dict) and ("judged_by" in content or (run and "pytorch-lightning_version" in content))
    if not ours:
        return Pretrained(ref, state, None, run)
    prefix = f"{content.get('judged_by', 'backbone')}."
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        raise UserError(f"{path} holds no '{prefix}' weights; give a checkpoint of a pretraining run")
    return Pretrained(ref, state, _card_of(run, content.get("card")), run)


def _file_in(folder: Path) -> Path:
    """The weights of a run folder: the finished backbone, else the last checkpoint of a run still going."""
    last = folder / "checkpoints" / "last.ckpt"
    for file, there in ((folder / FILE, folder / FILE), (last, last), (last, previous(last))):
        if there.exists():
            return file
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds neither {FILE} nor checkpoints/last.ckpt; give the folder of a pretraining run")


def _state_in(content: Any, path: Path) -> dict[str, Tensor]:
    """All networks in what a file held, by their dotted names; `foreign.fitted` finds the backbone among them."""
    try:
        state = foreign.networks(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not state:
        raise UserError(f"{path} holds no state_dict; save model.state_dict() and give that file")
    return state


def _card_of(run: Path | None, told: Any) -> dict[str, Any] | None:
    """The card of a run that has not finished: from its composed config, and what its checkpoint says of the data."""
    if run is None:
        return None
    file = run / "config.yaml"
    config = plain_yaml.read(file)
    if not isinstance(config, dict) or not isinstance(config.get("backbone"), dict):
        return None
    data, choices = (dict(config[key]) if isinstance(config.get(key), dict) else {} for key in ("data", "choices"))
    card = {key: data[key] for key in cards.INPUT if data.get(key) is not None}
    card |= {key: value for key, value in told.items() if key != "backbone"} if isinstance(told, dict) else {}
    named = {key: choices[key] for key in ("method", "data") if key in choices}
    return cards.described({"backbone": untrained(judged_node(config)), **card, **named}, str(file))


def _from_timm(name: str) -> Pretrained:
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm knows no model '{name}'.{did_you_mean(name, timm.list_models())}")
    state = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=True, num_classes=0))
    node = {"_target_": "ssl_lightning.models.timm.timm_backbone", "name": name}
    return Pretrained(f"timm:{name}", state, {"backbone": node, "method": f"timm:{name}"})


def _from_torchvision(name: str) -> Pretrained:
    from torchvision import models

    if name not in models.list_models():
        raise UserError(f"torchvision knows no model '{name}'.{did_you_mean(name, models.list_models())}")
    state = _download(f"torchvision:{name}", lambda: models.get_model(name, weights="DEFAULT"))
    node = {"_target_": "ssl_lightning.models.resnet.resnet", "name": name, "stem": "imagenet"}
    card = {"backbone": node, "method": f"torchvision:{name}"} if name.startswith("resnet") else None
    return Pretrained(f"torchvision:{name}", state, card)


def _download(ref: str, build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    try:
        return build().state_dict()
    except Exception as error:  # no network, no such weights, a full disk: each library has its own errors for these
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "download them on a machine with network and give the file as ckpt="
        raise UserError(f"the weights of {ref} could not be fetched ({why}); {fix}") from error


def load_weights(backbone: nn.Module, ref: str | Path | Pretrained) -> None:
    """Load weights into a backbone in place: each of its tensors, in its shape, and no layer left over.

    Files of other programs are read as they are (`foreign.fitted`): the teacher of a DINO, the encoder of a MAE, other
    libraries' names. What only training needs is set aside and positions are resampled, with a line on it.

    Args:
        backbone: the network; the weights that it has go.
        ref: a run, a checkpoint, a weights file, "timm:<name>", or what `resolve_ckpt` made of one of these.

    Raises:
        UserError: a tensor is missing, left over or of another shape (the first are named), or is not finite: a part is
            never loaded in silence.

    >>> load_weights(resnet("resnet50"), "moco_v2_800ep_pretrain.pth.tar")  # doctest: +SKIP
    """
    checkpoint = ref if isinstance(ref, Pretrained) else resolve_ckpt(ref)
    wanted, names = foreign.own_state(backbone), list(backbone.state_dict())
    fit = foreign.fitted(checkpoint.state, backbone, checkpoint.ref)
    fitting = {k: fit.state[k] for k in wanted if k in fit.state and fit.state[k].shape == wanted[k].shape}
    check_finite(fitting, checkpoint.ref)
    lacking = list(_lacking(fit.state, wanted))
    over = [_described(key, value) for key, value in fit.state.items() if key not in wanted]
    if lacking or over:
        rest = len(lacking) + len(over) - len(lacking[:1] + over[:1])
        shown = ", ".join([*lacking[:1], *(f"{key} is missing here" for key in over[:1])])
        more = f" (and {rest} more)" if rest else ""
        fix = lookalike.words(fit.state) or "choose the backbone it was trained with"
        raise UserError(f"{checkpoint.ref} is a checkpoint of another backbone: {shown}{more}; {fix}")
    backbone.load_state_dict({name: fit.state.get(key, wanted[key]) for name, key in zip(names, wanted)})
    if fit.words and is_main_process():
        print(f"{checkpoint.ref}: {fit.words}", file=sys.stderr)


def check_finite(state: Mapping[str, Tensor], ref: str) -> None:
    """Raise a UserError that names the first tensor with a value that is NaN or infinite."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            what = f"'{key}' has {bad} of {value.numel()}"
            raise UserError(f"{ref} holds weights that are not finite: {what}; give an earlier checkpoint")


def _lacking(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterable[str]:
    for key, value in wanted.items():
        if key not in found:
            if not key.endswith("num_batches_tracked"):  # absent from old files, and only a counter
                yield f"{_described(key, value)} is missing there"
        elif found[key].shape != value.shape:
            yield f"'{key}' is {tuple(found[key].shape)} there and {tuple(value.shape)} here"


def _described(key: str, value: Tensor) -> str:
    return f"'{key}' {tuple(value.shape)}"


def _elements(state: Mapping[str, Tensor]) -> int:
    """How many numbers a state holds; a tensor may say that it is larger than what it is made of."""
    parts = {(s := t.untyped_storage()).data_ptr(): s.nbytes() // t.element_size() for t in state.values()}
    return sum(parts.values())


def no_larger(checkpoint: Pretrained) -> AbstractContextManager[None]:
    """Refuses a network that is much larger than a checkpoint's weights, as it is built."""
    return cards.no_larger(len(checkpoint.state), _elements(checkpoint.state))


def build_backbone(
    card: Mapping[str, Any],
    trusted: Iterable[str] = (),
    ref: str = "this backbone",
    state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A card's backbone with fresh random weights. It may name our own encoders, and classes of trusted packages.

    `state` are the weights that came with the card: a network that is much larger than they are is refused.
    """
    with cards.no_larger(len(state), _elements(state)) if state is not None else nullcontext():
        backbone = cards.backbone_of(card, trusted, ref)
    if not isinstance(backbone, nn.Module):
        raise UserError(f"{card['backbone'].get('_target_')} does not build a backbone; it must be a torch.nn.Module")
    return adopted(backbone)


def restored(ref: str | Path | Pretrained, trusted: Iterable[str] = ()) -> nn.Module:
    """The backbone of a reference with its weights, in eval mode; `ssl_lightning.load_backbone` for what is below it.

    Raises UserError for what does not say which backbone it holds.
    """
    checkpoint = ref if isinstance(ref, Pretrained) else resolve_ckpt(ref)
    if checkpoint.card is None:
        raise UserError(f"{checkpoint.ref} does not say which backbone it holds; build one and use load_weights")
    backbone = build_backbone(checkpoint.card, trusted, checkpoint.ref, checkpoint.state)
    load_weights(backbone, checkpoint)
    return backbone.eval()
