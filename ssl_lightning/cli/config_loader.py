"""Hydra's config loader with one rule more: what can run code counts only where the user typed it.

`hydra.*` names classes that Hydra builds and folders that it reads, `trusted_packages` opens the allow-list. A yaml of
an experiment, of `--config-dir`, or of any other option may set neither: what is composed must be what the command line
alone gives.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra import initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.cli import conditions, help, photos, picks
from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.comparison import flatten

TRUST = "trusted_packages"


@contextmanager
def opened() -> Iterator[Any]:
    """Hydra with our folder of configs and the guarded loader."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(help.conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        SourcesRegistry.instance().types["file"] = FileConfigSource
        hydra.config_loader = Loader(hydra.config_loader.get_search_path())
        yield hydra


def with_folder(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """The overrides, with `--config-dir` added to the folders that they name themselves."""
    if config_dir is None:
        return list(overrides)
    folders = [f"file://{config_dir}"]
    others = []
    for override in _parse(overrides):
        if override.get_key_element() != "hydra.searchpath":
            others.append(str(override.input_line))
        else:
            found = override.value()
            folders = [*map(str, found if isinstance(found, list) else [found]), *folders]
    quoted = ["'" + folder.replace("'", r"\'") + "'" for folder in folders]
    return [*others, f"hydra.searchpath=[{','.join(quoted)}]"]


class FileConfigSource(file_config_source.FileConfigSource):
    """Reads the yamls of a folder, ours or the user's, and only such as are plain data."""

    read: ClassVar[list[Path]] = []  # files that are not ours, in this process; to say which one it was

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        if not path.is_relative_to(help.conf_dir()):
            self.read.append(path)
            plain_yaml.check(path)
        return super().load_config(config_path)


class Loader(config_loader_impl.ConfigLoaderImpl):
    """Refuses a composed config whose `hydra` node or trust is not what the command line alone says."""

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self.chosen: dict[str, Any] | None = None  # the config before any value of the command line, `hydra` aside
        self._typed: dict[tuple[str, ...], DictConfig] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        _check_options(overrides)
        start = len(FileConfigSource.read)
        overrides = [*overrides, *self._picked(config_name, overrides, run_mode)]
        found = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        typed = _parse(overrides)
        files = FileConfigSource.read[start:]
        _check_trust(found, typed, files)
        if files or any(map(_of_hydra, typed)):  # else only yamls of ours were read
            _check_hydra(found, self._typed_alone(config_name, typed, run_mode), typed, files)
        return found

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        parts = {str(default.config_path) for default in defaults}
        found = super()._compose_config_from_defaults_list(defaults, conditions.Conditional(repo, parts))  # type: ignore[arg-type]
        written = OmegaConf.to_container(found, resolve=False)
        assert isinstance(written, dict)
        self.chosen = {str(key): value for key, value in written.items() if key != "hydra"}
        return found

    def _picked(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> list[str]:
        """The network and the views that the data pick, as words of a command line."""
        if not any(re.match(r"\+?(data|experiment)=", word) for word in overrides):
            return []  # the default data are images
        typed, repo = self._parse_overrides_and_create_caching_repo(config_name, overrides)

        def chosen(words: Sequence[str]) -> dict[str, Any]:
            search = [str(o.input_line) for o in typed if o.get_key_element() == "hydra.searchpath"]
            return self.compute_defaults_list(config_name, [*words, *search], run_mode).overrides.known_choices

        return [*picks.added(typed, chosen, repo), *photos.added(typed, chosen)]

    def _typed_alone(self, config_name: str | None, typed: list[Override], run_mode: RunMode) -> DictConfig:
        """The config of the `hydra` words of the command line, without any folder but ours."""
        words = tuple(str(o.input_line) for o in typed if _of_hydra(o) and o.get_key_element() != "hydra.searchpath")
        if words not in self._typed:
            try:
                alone = [
                    *words,
                    *(f"~{group}" for group, _ in help.GROUPS),
                ]  # quicker, and nothing of these belongs there
                self._typed[words] = super().load_configuration(config_name, alone, run_mode, False, False)
            except (HydraException, OmegaConfBaseException) as error:
                shown = " ".join(words)
                raise UserError(
                    f"{shown} cannot be composed without --config-dir; hydra.* is read only from the command line and "
                    "from installed packages"
                ) from error
        return self._typed[words]


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _check_options(overrides: Sequence[str]) -> None:
    """What other yamls begin with, `data/_loader`, is not chosen itself."""
    for word in overrides:
        group, _, option = word.lstrip("+").partition("=")
        if option.startswith("_") and group in dict(help.GROUPS):
            raise UserError(f"there is no {group}={option}. There are: {', '.join(help.options(group))}.")


def _of_hydra(override: Override) -> bool:
    return re.match(r"hydra($|[./])", override.key_or_group) is not None


def _check_trust(found: DictConfig, typed: list[Override], files: list[Path]) -> None:
    words = [o for o in typed if o.key_or_group.partition(".")[0] == TRUST]
    if any(o.is_sweep_override() for o in words):
        return  # each job has a command line of its own
    for word in words:
        if "." in word.key_or_group or "${" in str(word.input_line):
            raise UserError(
                f"'{word.input_line}': write the packages out, {TRUST}=[mine,yours]; nothing else is trusted"
            )
    wanted = words[-1].value() if words and not words[-1].is_delete() else []
    value = OmegaConf.to_container(found, resolve=False).get(TRUST, [])  # type: ignore[union-attr]
    if value != wanted:
        flag = f"{TRUST}=[{','.join(map(str, value))}]" if isinstance(value, list) else f"{TRUST}=[...]"
        raise UserError(
            f"{_which(files, TRUST)} sets {TRUST}, which is allowed only on the command line: add {flag} there if you "
            "trust that code, or remove the key"
        )


def _check_hydra(found: DictConfig, alone: DictConfig, typed: list[Override], files: list[Path]) -> None:
    for word in filter(_of_hydra, typed):
        for start in re.findall(r"\$\{\s*([^}:\s]*:?)", str(word.input_line)):
            if not re.match(r"hydra[.:]|(now|oc\.env|python_version):$", start):
                raise UserError(f"'{word.input_line}' takes its value from the config; write the value itself")
    mine, theirs = _comparable(found), _comparable(alone)
    changed = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
    for kind in ("hydra", "task"):  # Hydra makes the command line of each job of a sweep from these
        words = [o.input_line for o in typed if o.is_hydra_override() == (kind == "hydra")]
        if OmegaConf.to_container(found.hydra.overrides[kind], resolve=False) != words:
            changed.append(f"overrides.{kind}")
    if changed:
        key = next((key for key in changed if mine.get(key)), changed[0])
        place = key.removeprefix("runtime.choices.") if key.startswith("runtime.") else f"++hydra.{key}"
        flag = f": add '{place}={mine[key]}' there if you trust it, or remove the key" if key in mine else ""
        raise UserError(f"{_which(files, 'hydra')} sets hydra.{key}, which is allowed only on the command line{flag}")


def _comparable(config: DictConfig) -> dict[str, Any]:
    """The leaves of the `hydra` node that a command line decides; which folders were searched is ours to say."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    node.pop("searchpath")
    node["job"].pop("override_dirname")
    choices = {group: choice for group, choice in node["runtime"]["choices"].items() if group.startswith("hydra/")}
    node["runtime"] = {"choices": choices}
    node.pop("overrides")  # the words themselves: compared as they were typed
    return flatten(node)


def _which(files: list[Path], word: str) -> str:
    """The file, of those just read, that holds a word; a word in general where none does."""
    for file in dict.fromkeys(files):
        if word in file.read_text():
            return str(file)
    return "a yaml"
