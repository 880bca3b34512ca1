"""What attacks on names and cards share: a trap that shows if one succeeded, and the ways in.

Each attack tries to write the file `{canary}`, itself or by way of `{pickle}` (a file that writes it when unpickled) or
of `evil_module` (a module that writes it when imported). All ways in are public names, so that the same table can be
run against any version.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from ssl_lightning import load_backbone
from ssl_lightning.config import instantiate
from ssl_lightning.models.convnet import ConvNetSmall

CONVNET = "ssl_lightning.models.convnet.ConvNetSmall"


@dataclass(frozen=True)
class Attack:
    """One way to do harm. `tries` and `refused` are for the table in the docs; `refused` must be in the one line."""

    name: str
    tries: str
    payload: Any
    refused: str
    trusted: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


class Trap:
    """A folder with the attacker's files, and the canary that must never be there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canary = folder, folder / "canary"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.pickle = folder / "bomb.pth"
        torch.save(_Bomb(self.canary), self.pickle)
        (folder / "evil_module.py").write_text(f"open({str(self.canary)!r}, 'w').close()\n")

    def filled(self, payload: Any) -> Any:
        """The payload with its places filled in."""
        if isinstance(payload, str):
            for name in ("canary", "pickle", "outside", "folder"):
                payload = payload.replace("{" + name + "}", str(getattr(self, name)))
            return payload
        if isinstance(payload, dict):
            return {self.filled(key): self.filled(value) for key, value in payload.items()}
        return [self.filled(item) for item in payload] if isinstance(payload, list) else copy.copy(payload)

    @property
    def sprung(self) -> list[str]:
        """What the attack wrote: [] is what we want."""
        found = [self.canary] if self.canary.exists() else []
        return [str(path) for path in (*found, *self.outside.rglob("*"))]


@contextmanager
def attackers_modules(trap: Trap) -> Iterator[None]:
    """With the attacker's module where Python finds it, as it is when a stranger's folder is the working directory."""
    sys.path.insert(0, str(trap.folder))
    try:
        yield
    finally:
        sys.path.remove(str(trap.folder))
        sys.modules.pop("evil_module", None)


def build(trap: Trap, attack: Attack) -> Any:
    """Build a config node, and go on as the run would: call what is made, and let it write."""
    with attackers_modules(trap):
        made = instantiate.instantiate(trap.filled(attack.payload), attack.trusted)
        return made() if attack.extra.get("call") else made


def weights_file(trap: Trap, card: Any, name: str = "foreign.safetensors") -> Path:
    """Somebody's weights file. A card that is text goes in as it is."""
    text = card if isinstance(card, str) else json.dumps(card)
    state = {key: value.contiguous() for key, value in ConvNetSmall(width=4).state_dict().items()}
    save_file(state, trap.folder / name, {"format": "pt", "card": text})
    return trap.folder / name


def run_folder(trap: Trap, config: Any) -> Path:
    """Somebody's unfinished run: a config and a checkpoint."""
    run = trap.folder / "run"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    state = {f"backbone.{key}": value for key, value in ConvNetSmall(width=4).state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.6.6"}, run / "checkpoints" / "last.ckpt")
    return run


def load_card(trap: Trap, attack: Attack) -> Any:
    with attackers_modules(trap):
        file = weights_file(trap, trap.filled(attack.payload))
        return load_backbone(file, trusted=attack.trusted)


def load_run(trap: Trap, attack: Attack) -> Any:
    with attackers_modules(trap):
        return load_backbone(run_folder(trap, trap.filled(attack.payload)), trusted=attack.trusted)
