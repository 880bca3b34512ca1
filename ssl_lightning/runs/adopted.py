"""Networks of others as backbones: how wide their features are, found by trying, without their classifier.

A backbone says its width in an integer `out_dim`. One that does not is tried with two images:

- A classifier that gives the network's last word (`CLASSIFIERS`) is taken off, with a line on it. A network that has
  `out_dim` keeps all of its layers.
- Features (B, D) are taken as they are. A map, (B, D, h, w) or (B, h, w, D), is averaged over its places where its
  two equal sides tell which they are. Of a tuple or a mapping, the one tensor (B, D) is taken, or the only tensor.
- Everything else (tokens, several tensors of one kind, features whose number grows with the image) is refused in a line
  that says what to return.

What is pooled or picked is so by a forward hook: the network keeps its class, and its weights keep their names.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import is_main_process

CLASSIFIERS = ("fc", "head", "heads", "classifier", "linear", "last_linear", "logits")
SIZES = (64, 224, 32, 96, 128, 256, 299, 384, 28)  # pixels, tried one after another
_told: set[str] = set()


class Way(NamedTuple):
    """From what a network gives to features (B, D): which item (None: it gives one tensor), and the axes of places."""

    item: Any = None
    places: tuple[int, ...] = ()


class _NotFeatures(Exception):
    """What the network gives instead."""


def adopted(backbone: nn.Module) -> nn.Module:
    """The backbone with an integer `out_dim`, in place: (B, C, H, W) -> (B, out_dim).

    Our own networks and timm's are left as they are. Raises UserError for a network that gives no features.
    """
    known = hasattr(backbone, "out_dim")
    if not isinstance(backbone, nn.Module):
        raise UserError(f"a backbone must be a torch.nn.Module; {type(backbone).__name__} is not")
    if known and any(kind.__module__.startswith(("ssl_lightning.", "timm.")) for kind in type(backbone).__mro__):
        return backbone
    name = type(backbone).__name__
    if known and (not isinstance(backbone.out_dim, int) or isinstance(backbone.out_dim, bool)):
        raise UserError(f"{name}.out_dim is {backbone.out_dim!r}; it must be the width of the features, an integer")
    with _as_it_was(backbone), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            size = _size(backbone)
        except UserError:
            if known:  # it may wait for images of a size of its own
                return backbone
            raise
        if not known:
            _take_off(backbone, size)
        try:
            way, width = _found(backbone, size)
        except _NotFeatures as error:
            raise UserError(f"{name} gives {error}") from None
        if known and width != backbone.out_dim:
            raise UserError(f"{name} says out_dim={backbone.out_dim} and gives features {width} wide; set it to that")
    if way != Way():
        backbone.register_forward_hook(functools.partial(_hook, way))
    net: Any = backbone
    net.out_dim = width
    return backbone


def _hook(way: Way, module: nn.Module, inputs: Any, output: Any) -> Tensor:
    return _features(output, way)


def _features(output: Any, way: Way) -> Tensor:
    found: Tensor = output if way.item is None else output[way.item]
    return found.mean(way.places) if way.places else found.flatten(1)


@contextmanager
def _as_it_was(net: nn.Module) -> Iterator[None]:
    """Puts back modes and buffers (running statistics): a trial leaves no trace."""
    modes = {module: module.training for module in net.modules()}
    buffers = {key: b.detach().clone() for key, b in net.named_buffers() if not torch.nn.parameter.is_lazy(b)}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for key, b in net.named_buffers():
            if key in buffers and buffers[key].shape == b.shape:
                with torch.no_grad():
                    b.copy_(buffers[key])


def images(net: nn.Module, size: int) -> Tensor:
    """Two images (2, C, size, size) that differ, with as many channels as the first layer takes."""
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None and first.in_channels else 3
    like = next((p for p in net.parameters() if not torch.nn.parameter.is_lazy(p)), torch.empty(0))
    return torch.linspace(-1, 1, 2 * channels * size * size).view(2, channels, size, size).to(like)


def _size(net: Any) -> int:
    """A size of images, in pixels, that the network takes. Raises UserError where it takes none of them."""
    config = getattr(net, "default_cfg", None) or {}
    embed = getattr(net, "patch_embed", None)  # of a transformer of timm's
    stated = [getattr(net, "image_size", None), getattr(net, "img_size", None), getattr(embed, "img_size", None)]
    stated += [(config.get("input_size") or (None,))[-1]] if isinstance(config, Mapping) else []
    stated = [size[-1] if isinstance(size, tuple | list) and size else size for size in stated]
    first = None
    for size in dict.fromkeys([*(size for size in stated if type(size) is int and size > 0), *SIZES]):
        try:
            net.eval()(images(net, size))
        except Exception as error:  # whatever this network says of images of another size
            first = (
                first
                or f"{tuple(images(net, size).shape)}: {(str(error).strip() or repr(error)).splitlines()[0][:200]}"
            )
            continue
        return size
    raise UserError(f"{type(net).__name__} has no out_dim, and fails on two images {first}; give it an integer out_dim")


def _found(net: nn.Module, size: int) -> tuple[Way, int]:
    """How the network's features are had, and how wide they are: the same in both modes and for any size it takes."""
    way = _way(net.eval()(images(net, size)))
    width = _features(net(images(net, size)), way).shape[1]
    try:
        other = _features(net(images(net, size // 2)), way).shape[1]
    except Exception:  # it takes the one size
        other = width
    if other != width:
        raise _NotFeatures(
            f"{width} features of an image of {size} px and {other} of one of {size // 2}; average them over places, "
            "or give the network an integer out_dim"
        )
    try:
        training = _way(net.train()(images(net, size)))
    except _NotFeatures as error:
        raise _NotFeatures(f"in training {error}") from None
    except Exception:  # BatchNorm over one value, for example; the run's batches are larger
        training = way
    if training != way:
        raise _NotFeatures("one kind of output in training and another in evaluation; return features (B, D) in both")
    return way, int(width)


def _way(output: Any) -> Way:
    """How features are had from what a network gives for two images."""
    if isinstance(output, Tensor):
        return Way(None, _places(output))
    items: list[tuple[Any, Any]] = []
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, tuple | list):
        items = list(enumerate(output))
    tensors = [(key, item) for key, item in items if isinstance(item, Tensor)]
    vectors = [(key, item) for key, item in tensors if item.ndim == 2]
    chosen = vectors if len(vectors) == 1 else tensors
    if len(chosen) != 1:
        parts = ", ".join(f"{key}: {tuple(item.shape)}" for key, item in tensors) or "no tensor"
        raise _NotFeatures(f"a {type(output).__name__} ({parts}); return the one tensor (B, D) of features")
    return Way(chosen[0][0], _places(chosen[0][1]))


def _places(found: Tensor) -> tuple[int, ...]:
    """The axes to average over; none of features (B, D)."""
    shape = tuple(found.shape)
    if len(shape) == 2 and shape[0] == 2 and found.is_floating_point():
        return ()
    if len(shape) == 4 and shape[0] == 2:
        first, last = shape[2] == shape[3], shape[1] == shape[2]
        if first != last:
            return (2, 3) if first else (1, 2)
        raise _NotFeatures(f"a map {shape} that does not tell which axis holds the channels; return x.mean((2, 3))")
    if len(shape) == 3:
        raise _NotFeatures(f"tokens {shape}; return one vector per image, x[:, 0] (the class token) or x.mean(1)")
    raise _NotFeatures(f"a tensor {shape} of two images; return features (B, D)")


# ---- the classifier


def _take_off(net: Any, size: int) -> None:
    """Replaces the layer that makes class scores, if it has the last word, with nothing."""
    if type(net).__module__.startswith("timm.") and hasattr(net, "reset_classifier"):
        if getattr(net, "num_classes", 0):
            net.reset_classifier(0)
        return
    for name in CLASSIFIERS:
        child: Any = getattr(net, name, None)
        layers = [(path, m) for path, m in child.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)] if isinstance(
            child, nn.Module
        ) else []  # fmt: skip
        if layers and isinstance(child, nn.Module) and _last_word(net, child, size):
            path, layer = layers[-1]
            sizes = tuple(layer.weight.shape[1::-1])
            net.set_submodule(".".join(filter(None, (name, path))), nn.Identity())
            _tell(f"{type(net).__name__}: the classifier '{name}' ({sizes[0]} to {sizes[1]}) is taken off; "
                  "to keep it, give the network an integer out_dim")  # fmt: skip
            return


def _last_word(net: nn.Module, child: nn.Module, size: int) -> bool:
    """Is what this layer gives what the network gives?"""
    said: list[Tensor] = []
    hook = child.register_forward_hook(lambda module, inputs, output: said.append(output))
    try:
        output = net.eval()(images(net, size))
    finally:
        hook.remove()
    given = [output, *(output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else ())]
    return any(
        isinstance(t, Tensor) and isinstance(s, Tensor) and t.numel() == s.numel() and t.data_ptr() == s.data_ptr()
        for t in given
        for s in said
    )


def _tell(text: str) -> None:
    if text not in _told and is_main_process():
        _told.add(text)
        print(text, file=sys.stderr)
