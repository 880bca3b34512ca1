"""`when:` in a yaml: what holds beside another choice. A method says there what it needs at a small size, for example.

    when:
      optimizer=lars: {optimizer: {base_lr: 0.4}}            # with another optimizer that one's own rate stands
      data=cifar10,cifar100: {method: {tile_size: 8}}
      experiment=cpu: {method: {projector: {hidden_dim: 512}}}

A condition is `group=option`, with several options separated by commas and `*` for any text. It holds where a yaml of
that name is part of the run, whoever chose it. What then holds is merged into the yaml as if it stood there, in the
order of the file, so later yamls and the command line win as always, and every key is checked as if it stood there.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from ssl_lightning.cli import picks
from ssl_lightning.core.errors import UserError, did_you_mean

KEY = "when"


class Conditional:
    """Hydra's repository of yamls, each with what holds beside `parts` (group/option of every yaml of the run)."""

    def __init__(self, repo: Any, parts: Collection[str]) -> None:
        self.repo, self.parts = repo, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.repo, name)

    def load_config(self, config_path: str) -> ConfigResult | None:
        found: ConfigResult | None = self.repo.load_config(config_path=config_path)
        if found is None or not isinstance(found.config, DictConfig):
            return found
        if not any(key in found.config for key in (KEY, *picks.KEYS)):
            return found
        config = copy.deepcopy(found.config)  # Hydra keeps the one that it has read
        for key in picks.KEYS:
            config.pop(key, None)
        if KEY not in config:
            return replace(found, config=config)
        blocks = config._get_node(KEY)  # as it is written: a reference has no value here
        del config[KEY]
        if not isinstance(blocks, DictConfig) or blocks._is_interpolation():
            raise UserError(f"{config_path}: {KEY} maps conditions to the keys they set, {KEY}: {{data=cifar10: ...}}")
        for condition, block in blocks.items_ex(resolve=False):
            if not isinstance(block, DictConfig) or block._is_interpolation():
                raise UserError(f"{config_path}: {KEY} {condition!s} takes a mapping of keys, not {block!r}")
            if self._holds(str(condition), config_path):
                config.merge_with(block)
        return replace(found, config=config)

    def _holds(self, condition: str, where: str) -> bool:
        group, equals, options = condition.partition("=")
        wanted = [option.strip() for option in options.split(",")]
        known = (
            self.repo.get_group_options(group, ObjectType.CONFIG) if equals and self.repo.group_exists(group) else []
        )
        for option in wanted:
            if not any(fnmatchcase(name, option) for name in known) and not self.repo.config_exists(
                f"{group}/{option}"
            ):
                hint = did_you_mean(option, known) or " A condition is group=option, for example data=cifar10."
                raise UserError(f"{where}: {KEY} '{condition}' names an option that does not exist.{hint}")
        return any(fnmatchcase(part, f"{group}/{option}") for part in self.parts for option in wanted)
