"""The published recipes of conf/experiment, and what they compose to (each once: it takes a third of a second)."""

from functools import cache
from pathlib import Path

from ssl_lightning.cli.compose import Config, compose

CONF = Path(__file__).parents[1] / "conf" / "experiment"
NAMES = sorted(f"{path.parent.name}/{path.stem}" for path in CONF.glob("*/*.yaml"))


@cache
def composed(name: str, *words: str) -> Config:
    needed = ["data.root=photos"] if name.startswith(("imagenet", "voc")) else []
    return compose([f"experiment={name}", *needed, *words])
