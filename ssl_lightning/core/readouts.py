"""What a linear probe reads of a network: its features, or other vectors of the same forward pass.

- `features`: what the network returns.
- `mean`: the mean of the patch tokens after the last norm, or of the places of the feature map.
- `cls`: the class token after the last norm.
- `last<n>`: the last n blocks side by side, as DINO probes them (Caron et al. 2021, appendix F.2,
  https://arxiv.org/abs/2104.14294): of each block the class token, of a network without one the mean of the patch
  tokens, after the last norm; of a convolutional network the means of the maps of its last n stages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import has_map, has_tokens, map_encoder, token_encoder

FEATURES = "features"
NAME = re.compile(r"features|mean|cls|last([1-9]\d?)")


def check_names(names: Sequence[str], where: str = "stage.probe.readouts") -> None:
    """Raise a UserError for a readout that there is not, or that is named twice."""
    if not names:
        raise UserError(f"{where} is empty; give one or more, such as [{FEATURES}, mean, last4]")
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            known = "features, mean, cls and last<n>, such as last4"
            raise UserError(f"{where}: no readout named {str(name)[:40]!r}; choose of {known}")
    if len(set(names)) < len(names):
        raise UserError(f"{where} names one twice: {', '.join(names)}")


def columns(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where each readout lies in rows that hold all of them side by side.

    >>> columns({"features": 8, "mean": 4})
    {'features': slice(0, 8, None), 'mean': slice(8, 12, None)}
    """
    ends = list(accumulate(widths.values()))
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


class Readouts(nn.Module):
    """A network that gives several readouts side by side, (B, sum of their widths), from one forward pass.

    Args:
        network: whose readouts they are; an `Encoder`, for all but `features` with tokens or a map.
        names: which, in this order; see the top of this file.

    Attributes:
        widths: of each readout, known after the first call.

    Raises:
        UserError: there is no such readout, or the network does not have it.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        check_names(names)
        self.network, self.names = network, tuple(names)
        self.widths: dict[str, int] = {}
        tokens = has_tokens(network)
        blocks = max((_count(name) for name in names), default=0)
        for name in names:
            if name != FEATURES and not (has_map(network) if name == "mean" or _count(name) else tokens):
                raise UserError(_lacks(network, name))
        if "cls" in names and not token_encoder(network).has_class_token:
            raise UserError(_lacks(network, "cls"))
        there = len(_blocks(network)) if blocks and tokens else len(_stages(network)) if blocks else 0
        if blocks > there:
            raise UserError(
                f"stage.probe.readouts: last{blocks} asks for {blocks} {'blocks' if tokens else 'stages'}, and "
                f"{type(network).__name__} {f'has {there}' if there else 'does not say where they end'}; leave it out"
            )

    @property
    def out_dim(self) -> int:
        """The sum of the widths."""
        return sum(self.widths.values())

    def forward(self, x: Any) -> Tensor:
        """Items -> all readouts (B, out_dim)."""
        if self.names == (FEATURES,):
            found = {FEATURES: self.network(x)}
        else:
            found = (self._of_tokens if has_tokens(self.network) else self._of_map)(x)
        self.widths = {name: found[name].shape[1] for name in self.names}
        return torch.cat([found[name] for name in self.names], 1)

    def _of_tokens(self, x: Any) -> dict[str, Tensor]:
        encoder, most = token_encoder(self.network), max(_count(name) for name in self.names)
        states: list[Tensor] = []
        with ExitStack() as stack:
            for block in _blocks(self.network)[-most:] if most else ():
                hook = block.register_forward_hook(lambda module, args, out: states.append(out))
                stack.callback(hook.remove)
                tokens = encoder.tokens(x)  # (B, R + N, D)
        norm: Any = getattr(self.network, "norm", None)

        def of_block(state: Tensor) -> Tensor:
            normed = norm(state)
            return normed[:, 0] if encoder.has_class_token else encoder.split(normed)[1].mean(1)

        found = {FEATURES: encoder.read(tokens), "mean": encoder.split(tokens)[1].mean(1), "cls": tokens[:, 0]}
        lasts = {name: _count(name) for name in self.names if _count(name)}
        return found | {name: torch.cat([of_block(s) for s in states[-n:]], 1) for name, n in lasts.items()}

    def _of_map(self, x: Any) -> dict[str, Tensor]:
        stages, lasts = _stages(self.network), {name: _count(name) for name in self.names if _count(name)}
        with _recorded(self.network) as maps, _watched(stages if lasts else []) as means:
            features = self.network(x)
        last = maps[-1] if maps else map_encoder(self.network).feature_map(x)
        found = {FEATURES: features, "mean": last.flatten(2).mean(2)}
        return found | {name: torch.cat(means[-n:], 1) for name, n in lasts.items()}


def _count(name: str) -> int:
    """4 of `last4`, 0 of others."""
    match = NAME.fullmatch(name)
    return int(match[1] or 0) if match else 0


def _lacks(network: nn.Module, name: str) -> str:
    has = "mean of its map" if has_map(network) else "features alone"
    return (
        f"stage.probe.readouts: {type(network).__name__} has no {'class token' if name == 'cls' else 'tokens or map'} "
        f"to read {name} from (it has {has}); leave {name} out"
    )


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a token encoder, where it has them and a norm behind them under the names that timm has."""
    blocks = getattr(network, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(network, "norm") else []


# A module, whether its output is the map (otherwise what it is given), and its channels where they are known.
Stage = tuple[nn.Module, bool, int]


def _stages(network: nn.Module) -> list[Stage]:
    """Where the maps of a convolutional network's stages are to be had, in order.

    A network of ours says with `stages` which of its modules are given the map of the stage before; the last stage is
    the last of these. timm's networks list the modules in `feature_info`.
    """
    own = getattr(network, "stages", None)
    if isinstance(own, tuple) and all(isinstance(name, str) for name in own):
        modules = [network.get_submodule(name) for name in own]
        return [*((module, False, 0) for module in modules), (modules[-1], True, 0)]
    listed, known = getattr(network, "feature_info", None), dict(network.named_modules())
    infos = [info for info in listed if isinstance(info, dict)] if isinstance(listed, list) else []
    return [(known[i["module"]], True, int(i.get("num_chs") or 0)) for i in infos if i.get("module") in known]


@contextmanager
def _watched(stages: Sequence[Stage]) -> Iterator[list[Tensor]]:
    """The mean (B, C) over the places of each stage's map, filled as the network runs."""
    found: list[Tensor] = []

    def watch(after: bool, width: int) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, out: Tensor) -> None:
            made = out if after else args[0]
            found.append(_channels_first(made, width or made.shape[1]).flatten(2).mean(2))

        return look

    with ExitStack() as stack:
        for module, after, width in stages:
            stack.callback(module.register_forward_hook(watch(after, width)).remove)
        yield found


@contextmanager
def _recorded(network: nn.Module) -> Iterator[list[Tensor]]:
    """The feature maps that the network makes on its way to its features: no second pass for them."""
    name = "feature_map" if hasattr(network, "feature_map") else "forward_features"
    found: list[Tensor] = []
    method, encoder = getattr(network, name), map_encoder(network)

    def recorded(*args: Any, **options: Any) -> Tensor:
        made = method(*args, **options)
        found.append(made)
        return made

    network.__dict__[name] = recorded  # for the network's own call, in place of its class's
    try:
        yield found
    finally:
        del network.__dict__[name]
        for i, made in enumerate(found):
            found[i] = _channels_first(made, encoder.out_dim)


def _channels_first(made: Tensor, width: int) -> Tensor:
    """timm's Swin has channels last."""
    swapped = made.ndim == 4 and made.shape[1] != width and made.shape[3] == width
    return made.permute(0, 3, 1, 2) if swapped else made
