"""`_target_=` on the command line: another class in the place of a yaml's, without what that one alone takes.

`optimizer.optimizer._target_=torch.optim.Adam` leaves the momentum of SGD behind. Only what was typed is asked to fit
the new class; what a yaml brings, and the new class does not take, is left out, and a line says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_lightning.config import allowed, signatures
from ssl_lightning.runs.comparison import flatten

TYPED = re.compile(r"\+{0,2}([A-Za-z_][\w.]*)\._target_=(.*)", re.DOTALL)


def left_out(raw: DictConfig, words: Sequence[str]) -> tuple[str, ...]:
    """Take out of a composed config what a typed class does not take; returns the lines that say what."""
    said = []
    for word in words:
        found = TYPED.fullmatch(word)
        node = OmegaConf.select(raw, found[1]) if found else None
        if found is None or not isinstance(node, DictConfig):
            continue
        name = _written(node)["_target_"]
        signature = signatures.read(name) if allowed.public(name) else None
        if signature is None:
            continue  # no source to read: the check of the whole config imports it
        unknown = [key for key in map(str, node) if not key.startswith("_") and not signature.accepts(key)]
        gone = [key for key in unknown if not _is_typed(f"{found[1]}.{key}", words)]
        _take_out(raw, found[1], gone)
        if gone:
            keys = ", ".join(f"{found[1]}.{key}" for key in gone)
            said.append(f"left out: {keys}, which {name.rpartition('.')[2]} does not take")
    return tuple(said)


def _is_typed(place: str, words: Sequence[str]) -> bool:
    return any(re.match(rf"[+~]*{re.escape(place)}[.=]", word) for word in words)


def _written(node: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _take_out(raw: DictConfig, part: str, keys: Sequence[str]) -> None:
    """Remove keys of a part; what refers to one of them keeps its value."""
    node: Any = OmegaConf.select(raw, part)
    values = {f"${{{part}.{key}}}": _written(node)[key] for key in keys}
    with open_dict(raw):
        for place, reference in flatten(_written(raw)).items():
            if isinstance(reference, str) and reference in values and not place.startswith(f"{part}."):
                OmegaConf.update(raw, place, values[reference])
        for key in keys:
            del node[key]
