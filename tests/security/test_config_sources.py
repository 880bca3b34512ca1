"""What runs code, or says what may, counts only where the user typed it: never from a yaml that somebody else wrote."""

import os
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.cli import compose, config_loader, sweep
from ssl_lightning.cli.arguments import parse
from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError
from tests.security.attack import Attack, parametrize, refused

HEAD = "# @package _global_\n"
RUN = "{_target_: os.system, command: 'touch canary'}"
ONLY = "is allowed only on the command line"


def experiment(text: str) -> dict[str, Any]:
    return {"files": {"experiment/evil.yaml": HEAD + text}, "words": ["experiment=evil"]}


def group(path: str, text: str) -> dict[str, Any]:
    return {"files": {path: text}, "words": [path.removesuffix(".yaml").replace("/", "=")]}


def bomb(last: str) -> str:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(["a0: &a0 [x]", *lines, last]) + "\n"


CALLBACK = f"hydra: {{callbacks: {{evil: {RUN}}}}}"
OTHER = "{_target_: evil.Other}"  # a launcher and a sweeper have schemas that take no `command`
MERGES = "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12))
LOGGING = "{handlers: {evil: {(): os.system, command: touch canary}}}"

ATTACKS = [
    Attack("callback", "an experiment adds `hydra.callbacks`", ONLY, experiment(CALLBACK)),
    Attack("launcher", "an experiment sets `hydra.launcher`", ONLY, experiment(f"hydra: {{launcher: {OTHER}}}")),
    Attack("sweeper", "an experiment sets `hydra.sweeper`", ONLY, experiment(f"hydra: {{sweeper: {OTHER}}}")),
    Attack(
        "job logging",
        "a handler's factory in `hydra.job_logging`",
        ONLY,
        experiment(f"hydra: {{job_logging: {LOGGING}}}"),
    ),
    Attack("hydra logging", "`hydra.hydra_logging`", ONLY, experiment(f"hydra: {{hydra_logging: {LOGGING}}}")),
    Attack("env_set", "`hydra.job.env_set`", ONLY, experiment("hydra: {job: {env_set: {PATH: .}}}")),
    Attack("chdir", "`hydra.job.chdir`", ONLY, experiment("hydra: {job: {chdir: true}}")),
    Attack("run dir", "`hydra.run.dir`", ONLY, experiment("hydra: {run: {dir: canary}}")),
    Attack("sweep dir", "`hydra.sweep.dir`", ONLY, experiment("hydra: {sweep: {dir: canary}}")),
    Attack("output", "`hydra.output_subdir`", ONLY, experiment("hydra: {output_subdir: canary}")),
    Attack("mode", "an experiment turns a run into a sweep", ONLY, experiment("hydra: {mode: MULTIRUN}")),
    Attack(
        "search path",
        "an experiment adds a folder to `hydra.searchpath`",
        "only supported from the primary config",
        experiment("hydra: {searchpath: ['file:///tmp']}"),
    ),
    Attack(
        "words of a job",
        "an experiment writes overrides into `hydra.overrides.task`",
        ONLY,
        experiment("hydra: {overrides: {task: ['trusted_packages=[evil]']}}"),
    ),
    Attack(
        "words of Hydra",
        "the same in `hydra.overrides.hydra`",
        ONLY,
        experiment("hydra: {overrides: {hydra: ['hydra.launcher._target_=os.system # hydra.searchpath']}}"),
    ),
    Attack(
        "defaults list",
        "an experiment's defaults choose a `hydra/launcher` of its folder",
        ONLY,
        {
            "files": {
                "experiment/evil.yaml": f"{HEAD}defaults: [override /hydra/launcher: evil]",
                "hydra/launcher/evil.yaml": RUN,
            },
            "words": ["experiment=evil"],
        },
    ),
    Attack(
        "logging chosen",
        "an experiment's defaults choose another of Hydra's own `hydra/job_logging`",
        ONLY,
        experiment("defaults: [override /hydra/job_logging: none]"),
    ),
    Attack(
        "launcher of a folder",
        "`--config-dir` brings the `hydra/launcher` that the user types",
        "cannot be composed without --config-dir",
        {"files": {"hydra/launcher/evil.yaml": RUN}, "words": ["hydra/launcher=evil"]},
    ),
    Attack(
        "package line",
        "a data yaml moves itself into `hydra.callbacks`",
        ONLY,
        group("data/evil.yaml", "# @package hydra.callbacks.evil\n_target_: os.system\ncommand: touch canary"),
    ),
    Attack("global group", "a data yaml with `@package _global_`", ONLY, group("data/evil.yaml", HEAD + CALLBACK)),
    Attack(
        "typed reference",
        "a `hydra` word on the command line that takes its value from a yaml",
        "takes its value from the config",
        experiment("notes: {x: os.system}") | {"words": ["experiment=evil", "hydra.job.name=${notes.x}"]},
    ),
    Attack("trust", "an experiment sets `trusted_packages`", ONLY, experiment("trusted_packages: [evil]")),
    Attack(
        "trust in a group",
        "a data yaml sets `trusted_packages`",
        ONLY,
        group("data/evil.yaml", f"{HEAD}trusted_packages: [evil]"),
    ),
    Attack(
        "trust by reference",
        "`trusted_packages` refers to another key",
        ONLY,
        experiment("trusted_packages: ${notes.x}\nnotes: {x: [evil]}"),
    ),
    Attack(
        "typed trust by reference",
        "a typed `trusted_packages` that takes its value from a yaml",
        "write the packages out",
        experiment("notes: {x: [evil]}") | {"words": ["experiment=evil", "trusted_packages=${notes.x}"]},
    ),
    Attack("alias bomb", "aliases of aliases: 10^11 values", "too many values", experiment(bomb("notes: {x: *a11}"))),
    Attack("merge bomb", "the same with merge keys", "too many values", experiment(f"a0: &a0 {{x: 1}}\n{MERGES}")),
    Attack("alias of itself", "an alias inside its own anchor", "inside of itself", experiment("notes: &a {x: *a}")),
    Attack("nesting", "100,000 brackets", "nests more than", experiment("notes: " + "[" * 100_000)),
    Attack("large yaml", "a yaml of 5 MiB", "larger than", experiment("# " + "x" * 5 * 1024**2)),
    Attack(
        "python tag",
        "`!!python/object/apply`",
        "only plain values",
        experiment("notes: {x: !!python/object/apply:os.system ['touch canary']}"),
    ),
    Attack("large number", "a number of 300,000 characters", "too long", experiment("seed: 1" + ":0" * 150_000)),
    Attack(
        "pipe as yaml",
        "a yaml that is a named pipe",
        "Could not find 'experiment/evil'",
        {"files": {"experiment/evil.yaml": None}, "words": ["experiment=evil"]},
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def place(files: dict[str, str | None]) -> list[str]:
    """Make a `--config-dir`; a file without text is a named pipe."""
    for name, text in files.items():
        path = Path("conf", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path) if text is None else path.write_text(text)
    return ["--config-dir", "conf"]


@pytest.mark.timeout(60)
@parametrize(ATTACKS)
def test_refused_in_one_line(attack: Attack, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*place(attack.data["files"]), *attack.data["words"]], capsys)
    assert attack.refused in said
    assert [path.name for path in here.iterdir()] == ["conf"]  # no canary, no runs/


@pytest.mark.parametrize("mode", [["--cfg", "job"], ["-m", "seed=0,1"]], ids=["cfg", "sweep"])
@parametrize([a for a in ATTACKS if a.name in ("callback", "launcher", "trust", "words of a job", "alias bomb")])
def test_refused_in_every_mode(attack: Attack, mode: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag, *rest = mode if mode[0] == "-m" else [*mode, "seed=0"]
    words = [*place(attack.data["files"]), flag, *rest, *attack.data["words"]]
    assert attack.refused in refused(words, capsys)
    assert [path.name for path in here.iterdir()] == ["conf"]


def test_a_yaml_that_only_one_job_of_a_sweep_reads(here: Path) -> None:
    """The first job and each further value are composed beforehand; the combination of two further values is not."""
    place({
        "experiment/pick.yaml": f"{HEAD}defaults:\n  - /extra@_global_: for_${{debug}}\n",
        "experiment/plain.yaml": HEAD,
        "extra/for_fast.yaml": "{}",
        "extra/for_overfit.yaml": f"hydra: {{callbacks: {{evil: {RUN}}}}}",
    })  # fmt: skip
    started: list[list[str]] = []
    asked = parse(["--config-dir", "conf", "-m", "experiment=plain,pick", "debug=fast,overfit"])
    with pytest.raises(UserError, match=r"for_overfit\.yaml sets hydra\.callbacks"):
        sweep.main(asked, lambda command: started.append(command) or 0)
    assert not Path("canary").exists()
    assert len(started) <= 3


def test_ours_are_found_first(here: Path) -> None:
    place({"config.yaml": "hydra: {run: {dir: canary}}", "experiment/cpu.yaml": f"{HEAD}trusted_packages: [evil]"})
    found = compose.compose(["experiment=cpu"], here / "conf")
    assert found.values["trusted_packages"] == []


def test_honest_words_stay(here: Path) -> None:
    place({"experiment/mine.yaml": f"{HEAD}seed: 7\nnotes: {{one: &a {{x: 1}}, two: *a}}", "data/photos.yaml": "{}"})
    words = ["experiment=mine", "trusted_packages=[mine,'yours']", "hydra.job.name=x", "hydra/job_logging=none"]
    found = compose.compose([*words, "hydra.searchpath=['file:///tmp']"], here / "conf")
    assert (found.values["seed"], found.values["trusted_packages"]) == (7, ["mine", "yours"])
    assert (found.values["notes"]["one"], found.values["notes"]["two"]) == ({"x": 1}, {"x": 1})


def test_every_yaml_of_ours_is_plain() -> None:
    files = list(config_loader.help.conf_dir().rglob("*.yaml"))
    assert len(files) > 100
    for file in files:
        plain_yaml.check(file)
