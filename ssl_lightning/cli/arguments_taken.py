"""Arguments that a class takes and no yaml states are typed like all others: `method.projector.bias=true`, no plus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from ssl_lightning.config import aliases, allowed, signatures

TRAINER = "lightning.Trainer"
TIMM = "ssl_lightning.models.timm.timm_backbone"
# What a run itself gives to these, which is nobody's to type.
GIVEN = {"method": {"backbone", "optimizer"}, "trainer": {"callbacks", "default_root_dir", "use_distributed_sampler"}}


def added(words: Sequence[Override], chosen: Mapping[str, Any] | None) -> list[str]:
    """The words as Hydra takes them: with "+" where one gives such an argument. `chosen`: the config before them."""
    classes = {w.key_or_group: w.value() for w in words if w.key_or_group.endswith("._target_")}  # typed ones win
    return [
        f"+{word.input_line}" if chosen and _is_argument(word, chosen, classes) else str(word.input_line)
        for word in words
    ]


def _is_argument(word: Override, chosen: Mapping[str, Any], classes: Mapping[str, Any]) -> bool:
    if word.is_add() or word.is_force_add() or word.is_delete() or "/" in word.key_or_group:
        return False
    *place, name = word.key_or_group.split(".")
    node: Any = chosen
    for part in place:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not place or not isinstance(node, Mapping) or name in node or name in _given(place):
        return False
    written = node.get("_target_", TRAINER if place == ["trainer"] else "")
    target = aliases.resolve(str(classes.get(".".join([*place, "_target_"]), written)))
    signature = signatures.read(target) if allowed.public(target) else None
    if signature is None or name.startswith("_"):
        return False
    return name in signature.params or (target == TIMM and name in allowed.TIMM_ARGUMENTS)


def _given(place: list[str]) -> set[str]:
    """Of the class that stands here."""
    if place == ["stage"]:
        from ssl_lightning.cli.run_parts import Parts

        return set(Parts.names())
    return GIVEN.get(place[0], set()) if len(place) == 1 else {"run_path"}
