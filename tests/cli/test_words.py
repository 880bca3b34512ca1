"""Paths and names are text: what is typed arrives, whatever Hydra's grammar would make of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli import sweep
from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.compose import compose
from ssl_lightning.cli.words import as_typed, quoted
from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder
from tests.test_cli import BASE

ODD = [
    "fotos-ä", "a=b", "photos (copy)", "d'or", "x#y", "[raw]", "a&b", "tilde~1", "2024", "1e3", "a,b", "{x}", "true",
    "epoch=3-step=9.ckpt", "a:b", "on", "*", "a%b", "a b", "é", "-1", "0x10", 'x"y', "@", "!x", "$a", "a;b", "|",
    "1_000", "inf", "nan", "off", "a=b,c=d", "x[0]", "choice(a,b)", "~", "<<", ">", "`x`", "null.d", "'", '"',
]  # fmt: skip
PATHS = ["~/pics", "C:\\x", "a\\", "a\\'b", "  s", "/data/a=b/[c]", "../x y", "./2024"]
KEYS = ["data.root", "data.probe_root", "ckpt", "runs_dir", "name"]


def value(key: str, values: dict[str, Any]) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


@pytest.mark.parametrize("key", KEYS)
def test_what_is_typed_arrives(key: str) -> None:
    words = ["data=folder", *(["data.root=x"] if key != "data.root" else [])]
    texts = ODD if key == "name" else [*ODD, *PATHS]
    typed = as_typed([f"{key}={text}" for text in texts])
    for text, word in zip(texts, typed, strict=True):
        if text in ("[raw]", "2024") or (key == "data.root" and text in ("~/pics", "a\\'b")):  # through Hydra and back
            assert value(key, compose([*words, f"{key}={text}"]).values) == text
        assert as_typed([word]) == [word], text  # a job of a sweep types it once more


def test_through_hydras_grammar_alone() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for text in [*ODD, *PATHS]:
        assert parser.parse_overrides([f"x={quoted(text)}"])[0].value() == text
        assert parser.parse_overrides(as_typed([f"data.root={text}"]))[0].value() == text


def test_what_is_more_than_text() -> None:
    words = ["data=folder", "data.root=x"]
    assert compose([*words, "ckpt=null"]).values["ckpt"] is None
    assert compose([*words, "data.labels=true"]).values["data"]["labels"] is True
    assert compose([*words, "seed=7", "data.root='${seed}/x'"]).values["data"]["root"] == "7/x"
    assert compose([*words, "seed=7", "data.root=a=${seed}"]).values["data"]["root"] == "a=7"
    assert compose([*words, "data.root='a b'"]).values["data"]["root"] == "a b"
    assert compose([*words, 'data.root="a, b"']).values["data"]["root"] == "a, b"
    assert compose(["seed=1_0"]).values["seed"] == 10  # numbers are Hydra's as ever
    assert compose(["method.loss.temperature=1e-1"]).values["method"]["loss"]["temperature"] == 0.1


def test_plain_words_stay_as_they_are() -> None:
    plain = [
        "data.root=photos",
        "ckpt=runs/moco-cifar10",
        "ckpt=timm:vit_tiny",
        "name=study/a-1.5",
        "seed=3",
        "~logger",
    ]
    plain += ["runs_dir=/tmp/x", "data.mean=[0.1,0.2,0.3]", "trainer.devices=2", "logger=[csv,wandb]", "name=null"]
    assert as_typed(plain) == plain


def test_deeper_keys_are_text_too() -> None:
    words = as_typed(["logger.wandb.project=a=b", "backbone.name=x#y", "method.loss.form=a b"])
    assert words[:2] == ["logger.wandb.project='a=b'", "backbone.name='x#y'"]


def test_an_empty_name_is_no_name() -> None:
    with pytest.raises(UserError, match="is empty"):
        compose(["name="])


@pytest.mark.parametrize("name", ["2024", "1e3", "[a=b]"])
def test_config_yaml_and_back(name: str, tmp_path: Path) -> None:
    config = compose([f"name={name}", f"runs_dir={tmp_path}/{name}", "data=folder", f"data.root={tmp_path}/{name}"])
    folder = RunFolder(config.path)
    assert config.path == tmp_path / name / name
    folder.open(config.stored)
    stored = plain_yaml.read(folder.path / "config.yaml")
    assert (stored["name"], stored["data"]["root"]) == (name, f"{tmp_path}/{name}")
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == stored


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("a=b,c", ["'a=b'", "c"]),
        ("photos (copy),d'or", ["'photos (copy)'", r"'d\'or'"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("2024,1e3", ["'2024'", "'1e3'"]),
        ("[a,b],c", ["'[a,b]'", "c"]),
        ("choice(a,b)", None),
        ("null,x", ["null", "x"]),
    ],
)
def test_commas_in_a_sweep_separate(typed: str, values: list[str] | None) -> None:
    word = as_typed([f"ckpt={typed}"], sweep=True)
    assert word == [f"ckpt={','.join(values) if values else typed}"]


def test_a_sweep_over_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[list[str]] = []
    odd = ["a=b", "photos (copy)", "2024", "d'or"]
    asked = parse([*BASE, "stage=standin", "-m", f"ckpt={','.join(odd)}", "name=[sw]"])
    assert sweep.main(asked, lambda command: told.append(command) or 1) == 1  # type: ignore[func-returns-value]
    assert [compose(list(command[5:]), Path(BASE[1])).values["ckpt"] for command in told] == odd
    assert len({command[-1] for command in told}) == 4
    assert (tmp_path / "runs" / "[sw]").is_dir()
