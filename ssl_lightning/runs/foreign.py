"""Weights that others have written: which part of a file a backbone is, and what of it stays aside.

`networks` flattens a file to dotted names; `fitted` finds the prefix and the dialect under which they are the
backbone's own, brings positions to its grid, and sets aside what only training needs. Nothing is loaded in part: what
is missing or left over is told to the caller.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.bounded import MOST_REPEATED
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.dialects import DIALECTS, State, last_names
from ssl_lightning.runs.harmless import NUMBERS
from ssl_lightning.runs.inert import Thing
from ssl_lightning.runs.positions import settle

# Parts of a file that hold tensors and no network.
_NO_NETWORK = """optimizer optimizers optimizer_states optimizer_state_dict optim opt scaler amp lr_scheduler
lr_schedulers scheduler loops callbacks args cfg config hparams hyper_parameters rng_state rng_states random_state
lightly_train"""
NO_NETWORK = frozenset(_NO_NETWORK.split())
# Put into names by what wraps a module: torch.compile, FSDP, activation checkpointing, Fabric.
WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Parts of a network that only its training needs, by their first word; left out where the backbone has none.
TRAINING_ONLY = re.compile(
    r"(heads?|head_dist|fc|classifier|linear|last_linear|pre_logits|projector|projection|projection_head|proj_head"
    r"|proj|predictor|prototypes\w*|decoder\w*|mask_token|masked_embed|dino_head|ibot_head|lm_head|neck|queue\w*"
    r"|pooler|logit_scale|contrastive_head|online_classifier|data_preprocessor)(\.|$)"
)
# Constants that some programs store; ours are computed.
CONSTANTS = re.compile(r"(^|\.)(relative_position_index|attn_mask|total_ops|total_params)$")
INSIDE = re.compile(r"(layer\d*|layers|blocks?|stages?|features|resblocks|downsample)")  # of a network: no prefix
LATER = frozenset(("momentum", "ema", "k", "key", "shadow", "target", "old", "slow", "avg", "averaged", "swa"))
_NONE = torch.empty(0)
MOST_VALUES, DEEPEST = 200_000, 12


@dataclass
class Fit:
    """How a file's tensors are a backbone's: the state in its names, and the words on it."""

    state: State
    prefix: str = ""
    dialect: str = ""
    aside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """What was taken and what was set aside; empty where the file is the backbone and nothing else."""
        if not (self.prefix or self.dialect or self.aside or self.notes):
            return ""
        where = f" under '{self.prefix}'" if self.prefix else ""
        named = f" (names of {self.dialect})" if self.dialect else ""
        more = f" and {len(self.aside) - 8} more" if len(self.aside) > 8 else ""
        aside = f"set aside: {', '.join(self.aside[:8])}{more}" if self.aside else ""
        return "; ".join(filter(None, (f"{len(self.state)} tensors{where}{named}", *self.notes, aside)))


# ---- what a file holds


def networks(content: Any) -> State:
    """All tensors of a file by their dotted names, without optimizers; a name that all begin with is taken off."""
    found = dict(_walk(content, "", 0, [0, 0]))
    inner = content
    for _ in range(DEEPEST):
        for word in ("state_dict", "model"):
            inside = inner.get(word) if isinstance(inner, Mapping) else None
            if isinstance(inside, Mapping | Thing) and found and all(key.startswith(f"{word}.") for key in found):
                found = {key[len(word) + 1 :]: value for key, value in found.items()}
                inner = inside
    return {WRAPPERS.sub("", key): value for key, value in found.items()}


def _walk(value: Any, name: str, depth: int, seen: list[int]) -> Iterator[tuple[str, Tensor]]:
    seen[0] += 1
    if seen[0] > MOST_VALUES or depth > DEEPEST:
        raise UserError("its content is nested too deeply or too long; save the network's state_dict alone")
    if isinstance(value, Thing):
        value = _opened(value)
    if isinstance(value, Tensor):
        seen[1] += value.numel() if value.numel() * value.element_size() > _bytes_of(value) else 0
        if seen[1] > MOST_REPEATED:
            raise UserError("it holds tensors that are larger than their bytes; save the network's state_dict alone")
        yield name.removesuffix("."), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and not (key in NO_NETWORK and not isinstance(item, Tensor)):
                yield from _walk(item, f"{name}{key}.", depth + 1, seen)


def _bytes_of(value: Tensor) -> int:
    return value.untyped_storage().nbytes() if value.layout == torch.strided and not value.is_meta else 0


def _opened(thing: Thing) -> Mapping[str, Any] | Tensor | None:
    """What may hold weights: a whole module's parts, the items of a mapping, the numbers of an array."""
    if isinstance(thing.state, dict) and isinstance(thing.state.get("_modules"), Mapping):
        parts = [thing.state.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
        off = thing.state.get("_non_persistent_buffers_set")
        off = off if isinstance(off, set) else set()
        return {k: v for part in parts if isinstance(part, Mapping) for k, v in part.items() if k not in off}
    return tensor_of(thing) if thing.args or thing.state else thing.items


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes are not to be written to; a copy of each could fill the memory
        flat = torch.frombuffer(content, dtype=NUMBERS[kinds[name]])
    return flat.reshape(shape) if flat.numel() == math.prod(shape) else None


# ---- which of it a backbone is


def fitted(state: Mapping[str, Tensor], backbone: nn.Module, ref: str = "the file") -> Fit:
    """The part of `state` that explains most of the backbone; of equals the one its authors evaluate (the teacher).

    Raises UserError where two networks of a file fit alike and none of them is known to be the one.
    """
    wanted = own_state(backbone)
    whole = sum(not key.endswith("num_batches_tracked") for key in wanted)
    fits = [_brought(state, prefix, dialect, backbone, wanted) for prefix, dialect in _places(state, wanted)]
    scores = [_score(fit.state, wanted) for fit in fits]
    # Of whole ones the one with least beside it; of others the largest, for the words on it.
    size = [len(fit.state) * (1 if score == whole else -1) for fit, score in zip(fits, scores)]
    order = sorted(range(len(fits)), key=lambda i: (-scores[i], rank(fits[i].prefix), size[i], i))
    best = fits[order[0]]
    for i in order[1:]:
        other = fits[i]
        alike = scores[i] == scores[order[0]] == whole and rank(other.prefix) == rank(best.prefix)
        if alike and not _same(best.state, other.state, wanted):
            both = f"'{best.prefix or 'the first'}' and '{other.prefix}'"
            raise UserError(f"{ref} holds two networks that fit, {both}; save the one you want alone")
    if scores[order[0]] < whole:
        best = _by_timm(state, best, backbone, wanted) or best
    return best


def own_state(backbone: nn.Module) -> State:
    """A backbone's state_dict, without what wraps its modules."""
    return {WRAPPERS.sub("", key): value for key, value in backbone.state_dict().items()}


def _score(state: State, wanted: Mapping[str, Tensor]) -> int:
    """How many of the wanted tensors are there, in their shape; counters of batches aside."""
    fitting = (key for key, value in state.items() if key in wanted and value.shape == wanted[key].shape)
    return sum(not key.endswith("num_batches_tracked") for key in fitting)


def rank(prefix: str) -> int:
    """Which network of a file comes first: the one that its authors evaluate. 0 is the first."""
    words = [word for word in re.split(r"[._]", prefix.lower()) if word]
    if "teacher" in words:
        return 0
    if "online" in words:
        return 1
    if "target_encoder" in prefix:  # I-JEPA, MSN; BYOL's stands beside an `online_encoder`
        return 2
    return 5 if LATER & set(words) else 4 if "student" in words else 3


def _places(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[tuple[str, Any]]:
    """Prefixes under which some of the wanted keys are, in our names or another library's."""
    keys = [key for key in wanted if not key.endswith("num_batches_tracked")]
    anchors = [(key, None) for key in keys[:: max(1, len(keys) // 12)]]
    anchors += [("blocks.0.0.norm1.weight", None)] if "blocks.0.norm1.weight" in wanted else []
    found: dict[tuple[str, Any], None] = {("", None): None}
    for anchor, dialect in [*anchors, *((dialect.anchor, dialect) for dialect in DIALECTS)]:
        for key in state:
            if key == anchor or key.endswith(f".{anchor}"):
                prefix = key[: len(key) - len(anchor)]
                if not any(INSIDE.fullmatch(word) for word in prefix.split(".")):
                    found[prefix, dialect] = None
    return list(found)


def _brought(
    state: Mapping[str, Tensor], prefix: str, dialect: Any, backbone: nn.Module, wanted: Mapping[str, Tensor]
) -> Fit:
    part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    part = last_names(dialect.ours(part) if dialect else part, wanted)
    own = {key.split(".")[0] for key in wanted}
    left = [
        key
        for key in part
        if key not in wanted and (CONSTANTS.search(key) or (TRAINING_ONLY.match(key) and key.split(".")[0] not in own))
    ]
    kept = {key: value for key, value in part.items() if key not in left}
    notes = settle(kept, backbone, wanted)
    outside = [key for key in state if not key.startswith(prefix)]
    named = [*(key.split(".")[0] for key in left if not CONSTANTS.search(key)), *_groups(outside, prefix)]
    return Fit(kept, prefix, dialect.name if dialect else "", list(dict.fromkeys(named)), notes)


def _groups(keys: list[str], prefix: str) -> Iterator[str]:
    """The parts outside: as many words of their names as they have in common with the prefix, and one more."""
    words = prefix.split(".")
    for key in keys:
        own = key.split(".")
        same = next((i for i, (a, b) in enumerate(zip(own, words)) if a != b), 0)
        yield ".".join(own[: same + 1])


def _same(one: State, other: State, wanted: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in wanted if key in one and key in other)


def _by_timm(state: Mapping[str, Tensor], fit: Fit, backbone: nn.Module, wanted: Mapping[str, Tensor]) -> Fit | None:
    """The same through timm's own filter for files of this architecture's authors, where that makes it whole."""
    name = type(backbone).__module__
    convert = getattr(sys.modules.get(name), "checkpoint_filter_fn", None) if name.startswith("timm.models.") else None
    patches = "patch_embed.proj.weight"  # of another size would be resampled: another network
    if convert is None or fit.state.get(patches, _NONE).shape != wanted.get(patches, _NONE).shape:
        return None
    part = {key[len(fit.prefix) :]: value for key, value in state.items() if key.startswith(fit.prefix)}
    try:
        found: State = dict(convert(part, backbone))
    except Exception:  # made for other files: fails on this one in its own ways
        return None
    extra = [key for key in found if key not in wanted]
    whole = all(key in found and found[key].shape == value.shape for key, value in wanted.items())
    if not whole or not all(TRAINING_ONLY.match(key) or CONSTANTS.search(key) for key in extra):
        return None
    aside = list(dict.fromkeys([*fit.aside, *(key.split(".")[0] for key in extra)]))
    return Fit({key: found[key] for key in wanted}, fit.prefix, "timm's filter", aside)
