"""One command line: composed, checked and run, or its config shown. A wrong key is told before the rest is imported."""

from __future__ import annotations

import sys

from ssl_lightning.cli import compose as composing
from ssl_lightning.cli.arguments import Arguments
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.core import launch, secrets
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import Launch
from ssl_lightning.core.signals import WATCH


def main(asked: Arguments) -> int:
    """Run one command line, or show its config; returns the exit status."""
    if asked.cfg:
        print(show_config(asked), end="")
        return 0
    place = launch.here()
    WATCH.quiet = not place.is_main
    try:
        place, config = begun(place, asked)
    except UserError as error:
        # Rank 0 has read the same command line, and has most likely found the same.
        if place.rank > 0 and not isinstance(error, launch.Misplaced):
            from ssl_lightning.core import crew

            return crew.last_word(place, f"error: {error}")
        raise
    from ssl_lightning.cli import ranks
    from ssl_lightning.cli import run as build

    with WATCH:
        try:
            build.run(config, ranks.command_of(asked.overrides, asked.config_dir))
        except build.Ended as end:
            return end.code
        except BaseException as error:
            if not WATCH.stopped(error):
                raise
            code, text = build.interrupted(config, error)
            print(text, file=sys.stderr)
            return code
    return 0


def begun(place: Launch, asked: Arguments) -> tuple[Launch, Config]:
    """Compose and check what was asked for: this process' place, and the config. Raises UserError."""
    config = compose(asked.overrides, asked.config_dir)
    from ssl_lightning.cli import run as build
    from ssl_lightning.core import missing

    missing.check()
    build.check(config)
    return build.settle(place, config)


def show_config(asked: Arguments) -> str:
    """The whole config as yaml, resolved or as written."""
    from omegaconf import OmegaConf

    if asked.resolve:
        return OmegaConf.to_yaml(compose(asked.overrides, asked.config_dir).shown)
    raw, _ = composing.compose_inherited(asked.overrides, asked.config_dir)
    node = OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])
    return OmegaConf.to_yaml(OmegaConf.create(secrets.mask(OmegaConf.to_container(node))))
