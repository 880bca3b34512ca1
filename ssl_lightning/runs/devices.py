"""Another number of devices for a run that was begun: the images of a step stay, and each device gets another share.

Batches are given per device (`stage.batch_size` where the stage has one, else `data.batch_size`). A run made with two
devices of 32 images goes on with one device of 64. Its stored config stays as it is, so it can go on with two again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = "processes"  # what the stored config says of a number that the machine chose (devices=auto)
PLACES = ("devices", "num_nodes", "strategy")


def count(config: Mapping[str, Any]) -> int | None:
    """Processes that a config asks for; None where the machine decides (auto, -1)."""
    trainer = config.get("trainer") or {}
    devices, nodes = _number(trainer.get("devices", 1)), trainer.get("num_nodes", 1)
    if KEPT in config:
        return int(config[KEPT])
    if devices in ("auto", -1, None) and trainer.get("accelerator") == "cpu":
        devices = 1  # what Lightning makes of it
    return devices * nodes if isinstance(devices, int) and devices > 0 and isinstance(nodes, int) else None


def _number(devices: Any) -> Any:
    """As Lightning reads it: "2" is a number, [0, 1], "0,1" and "1," are devices, "-1" and "auto" are all."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    if isinstance(devices, list | tuple):
        return len(devices)
    return int(devices) if isinstance(devices, str) and devices.strip().lstrip("-").isdigit() else devices


def chosen(config: Mapping[str, Any]) -> dict[str, int]:
    """`{"processes": n}` where only the machine knows how many devices `auto` is, else nothing."""
    if count(config) is not None:
        return {}
    import torch  # slow, and needed by the run anyway

    trainer = config["trainer"]
    return {KEPT: max(torch.accelerator.device_count(), 1) * int(trainer.get("num_nodes", 1))}


def _batch(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The part with the batch that is trained on, and its images per device."""
    for part in ("stage", "data"):
        size = (config.get(part) or {}).get("batch_size")
        if isinstance(size, int):
            return part, size
    return None


def shared_anew(stored: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The config with the images of a step that the stored one has, and what was changed for that, in words.

    It comes back as it is where no device came or went, where it keeps the images of a step by itself, and where they
    cannot be kept.
    """
    before, now, old, new = count(stored), count(config), _batch(stored), _batch(config)
    if not before or not now or before == now or old is None or old != new or old[1] * before % now:
        return dict(config), None
    (part, size), share = old, old[1] * before // now
    said = f"{part}.batch_size is {share} with {now} device{'s' * (now > 1)}, as it was {size} with {before}"
    return {**config, part: {**config[part], "batch_size": share}}, said


def as_stored(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it would be on the stored one's devices: what still differs from that one alters the result."""
    config, _ = shared_anew(stored, config)
    before, now, old, new = count(stored), count(config), _batch(stored), _batch(config)
    if not before or not now or old is None or new is None or old[0] != new[0] or old[1] * before != new[1] * now:
        return config
    same = {**config, old[0]: {**config[old[0]], "batch_size": old[1]}, "trainer": {**config["trainer"]}}
    for key in PLACES:
        there, here = ((values.get("trainer") or {}).get(key) for values in (stored, config))
        if key != "strategy" or (_plain(there) and _plain(here)):
            same["trainer"].pop(key, None)
            same["trainer"] |= {key: there} if key in (stored.get("trainer") or {}) else {}
    return same


def _plain(strategy: Any) -> bool:
    """One device, or a whole copy of the network on each: what these compute is the same."""
    return strategy in (None, "auto") or (isinstance(strategy, str) and strategy.startswith("ddp"))


def why_not(stored: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What hinders these devices, for a refusal; "" where devices are not the matter."""
    before, now, old, new = count(stored), count(config), _batch(stored), _batch(config)
    if not before or not now or before == now or old is None or old != new or old[1] * before % now == 0:
        return ""
    return f" {old[1] * before} images a step cannot be shared among {now} devices: choose a number that divides them."
