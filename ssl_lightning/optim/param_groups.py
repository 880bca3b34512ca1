"""Parameter groups: who has weight decay, who is adapted by LARS, and which layer learns how fast."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from ssl_lightning.core.errors import UserError

Named = Iterable[tuple[str, nn.Parameter]]
# What FSDP, activation checkpointing and torch.compile put into the names of a module that they wrap.
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
# Of a transformer; MAE (https://arxiv.org/abs/2111.06377) and BEiT spare them when they fine-tune.
PLACES = ("pos_embed", "cls_token", "dist_token", "reg_token")


def decayed_names(
    named_parameters: Named, decayed: Collection[str] = (), not_decayed: Collection[str] = ()
) -> frozenset[str]:
    """Who has weight decay: what learns and has more than one dimension, and `decayed`, but not `not_decayed`.

    Both name parameters whose shape does not tell: a mask token is one vector, and position embeddings are a matrix. A
    parameter with an attribute `no_decay` that is true has none either.
    """
    shapes = {name: p.ndim > 1 and not getattr(p, "no_decay", False) for name, p in named_parameters if p.requires_grad}
    return frozenset(name for name, weight in shapes.items() if (weight or name in decayed) and name not in not_decayed)


def spared_names(backbone: nn.Module) -> frozenset[str]:
    """Who has no weight decay in fine-tuning, whatever the shape: what timm's models name, and `PLACES` in any."""
    told = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()  # type: ignore[operator]
    names = (name for name, _ in backbone.named_parameters())
    return frozenset(name for name in names if name in told or name.rpartition(".")[2] in PLACES)


def unwrapped(name: str) -> str:
    """The name of a parameter as it was before its module was wrapped."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def split_decay(
    named_parameters: Named, decayed: Collection[str] | None = None, biases: bool = False
) -> list[dict[str, Any]]:
    """Two groups: weights, and the rest (biases and norms) without weight decay and LARS adaptation.

    Frozen parameters are left out, and so is a group that would be empty. The first group takes the optimizer's own
    weight decay. `adapt` means something to LARS alone; other optimizers carry it along.

    Args:
        decayed: names of the weights; None for `decayed_names` of these parameters.
        biases: whether the rest has weight decay, too.
    """
    named = [(unwrapped(name), p) for name, p in named_parameters if p.requires_grad]
    if not named:
        raise UserError("no parameter requires a gradient; there is nothing to optimize")
    chosen = decayed_names(named) if decayed is None else decayed
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in chosen]},
        {"params": [p for name, p in named if name not in chosen], "adapt": False},
    ]
    if not biases:
        groups[1]["weight_decay"] = 0.0
    return [group for group in groups if group["params"]]


def layer_decay(
    backbone: nn.Module,
    head: nn.Module,
    lr: float,
    decay: float,
    weight_decay: float,
    decayed: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Groups for fine-tuning: the head at `lr`, and the backbone's blocks as `block_groups` has them.

    Biases and norms have no weight decay. Each group bears a `name`: "block 3", "head". `decayed`: of the backbone's
    parameters, as in `split_decay`.
    """
    groups = block_groups(backbone, lr, decay, decayed)
    if any(p.requires_grad for p in head.parameters()):
        groups += [{**group, "lr": lr, "name": "head"} for group in split_decay(head.named_parameters())]
    return [{"weight_decay": weight_decay, **group} for group in groups]


def block_groups(
    backbone: nn.Module, lr: float, decay: float, decayed: Collection[str] | None = None, biases: bool = False
) -> list[dict[str, Any]]:
    """The groups of `split_decay` for each block of a backbone, each `decay` times slower than the next one.

    The last block has lr * decay, the first lr * decay^blocks (BEiT, https://arxiv.org/abs/2106.08254). Blocks are as
    `block_numbers` counts them. Each group bears a `name`: "block 3". `decayed` and `biases`: as in `split_decay`.
    """
    if not 0 < decay <= 1:
        raise UserError(f"layer decay is {decay}; it must be above 0 and at most 1 (1 means one rate for all)")
    groups: list[dict[str, Any]] = []
    numbers = block_numbers(backbone)
    blocks = max(numbers.values(), default=-1) + 1
    for block in range(blocks):
        named = [(name, p) for name, p in backbone.named_parameters() if numbers[name] == block]
        if any(p.requires_grad for _, p in named):
            rate = lr * decay ** (blocks - block)
            groups += [{**group, "lr": rate, "name": f"block {block}"} for group in split_decay(named, decayed, biases)]
    return groups


def block_numbers(backbone: nn.Module) -> dict[str, int]:
    """The block that each parameter belongs to, counted from the input: {name of parameter: 0, 1, ...}.

    timm's models say it themselves. Others are read from the order of their children: each child is a block, a norm
    goes with the block before it, and parameters of the module itself (position embeddings) with the first.
    """
    if hasattr(backbone, "group_matcher"):
        return _timm_numbers(backbone)
    prefix, module = "", backbone
    while (inner := _only_child(module)) is not None:  # look into wrappers
        name, module = inner
        prefix += name + "."
    numbers = {prefix + name: 0 for name, _ in module.named_parameters(recurse=False)}
    block = -1
    for child_name, child in module.named_children():
        named = list(child.named_parameters())
        if named and (block < 0 or any(p.ndim > 1 for _, p in named)):
            block += 1
        numbers.update({f"{prefix}{child_name}.{name}": block for name, _ in named})
    return numbers


def _only_child(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The one child that holds all parameters, if it has children of its own."""
    holders = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    alone = len(holders) == 1 and not list(module.parameters(recurse=False))
    return holders[0] if alone and list(holders[0][1].children()) else None


def _timm_numbers(backbone: Any) -> dict[str, int]:
    from timm.models import group_parameters  # only a timm model comes here, and timm takes half a second to import

    found = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    names = [name for name, _ in backbone.named_parameters()]
    used = sorted({found[name] for name in names})  # a dropped classifier leaves a hole in the count
    return {name: used.index(found[name]) for name in names}
