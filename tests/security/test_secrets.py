"""Passwords, keys and tokens: the run gets them, and nothing that is written or printed does."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.__main__ import main
from ssl_lightning.cli import sweep
from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.compose import compose
from ssl_lightning.core import secrets
from ssl_lightning.runs.folder import RunFolder
from tests.security.attack import Attack, everything, parametrize, refused
from tests.test_cli import BASE

START = [*BASE, "stage=standin", "name=kept"]
ENV = {"WANDB_API_KEY": "canaryEnv1", "MY_TOKEN": "cnry2", "DB_PASSWORD": "canary-password-3"}


def leak(name: str, tried: str, word: str, canary: str) -> Attack:
    return Attack(name, tried, "***", {"word": word, "canary": canary})


ATTACKS = [
    leak("api_key", "a key named `api_key`", "+stage.notes.api_key=canaryA1", "canaryA1"),
    leak("apikey", "a key named `apikey`", "+stage.notes.apikey=canaryA2", "canaryA2"),
    leak("password", "a key named `password`, deep inside", "+stage.notes.a.b.password=canaryA3", "canaryA3"),
    leak("number", "a password that is a number", "+stage.notes.passwd=91827364", "91827364"),
    leak("token", "a key named `token`", "+stage.notes.token=canaryA4", "canaryA4"),
    leak("camel", "a key named `accessToken`", "+stage.notes.accessToken=canaryA5", "canaryA5"),
    leak("kebab", "a key named `client-secret`", "+stage.notes.client-secret=canaryA6", "canaryA6"),
    leak("below", "a value below a key named `credentials`", "+stage.notes.credentials={user:canaryA7}", "canaryA7"),
    leak("list", "a list below a key named `secrets`", "+stage.notes.secrets=[canaryA8]", "canaryA8"),
    leak("environment", "`${oc.env:WANDB_API_KEY}` alone", "+stage.notes.x1=${oc.env:WANDB_API_KEY}", "canaryEnv1"),
    leak("inside text", "the same within a longer text", "+stage.notes.x2='a-${oc.env:WANDB_API_KEY}-b'", "canaryEnv1"),
    leak("short", "a short value of the environment", "+stage.notes.x3=${oc.env:MY_TOKEN}", "cnry2"),
    leak("reference", "a reference to a key that holds one", "+stage.notes.x4='${stage.notes.api_key}!'", "canaryA1"),
    leak("shell", "`$DB_PASSWORD` through the shell", "+stage.notes.x5=canary-password-3", "canary-password-3"),
    leak("address", "user and password in an address", "+stage.notes.x6='https://me:canaryB1@host/x'", "canaryB1"),
    leak("user alone", "a token as the user of an address", "+stage.notes.x7='https://canaryB2@host/x'", "canaryB2"),
    leak("slash", "a password with a slash and an at sign", "+stage.notes.x8='ftp://me:can/ary@B3@host'", "ary@B3"),
    leak("query", "a token in an address", "+stage.notes.x9='https://host/x?token=canaryB4'", "canaryB4"),
    leak("signature", "a signed address", "+stage.notes.y1='https://host/x?X-Amz-Signature=canaryB5'", "canaryB5"),
    leak("shape", "a token by its shape", f"+stage.notes.y2=hf_{'canaryB6' * 5}", "canaryB6"),
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run with all of them: what lies in its folder, and what three commands printed."""
    folder = tmp_path_factory.mktemp("secrets")
    words = [*START, *(attack.data["word"] for attack in ATTACKS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key, value in ENV.items():
            patch.setenv(key, value)
        assert main(words) == 0
        real = compose([w for w in words if w not in BASE[:2]], Path(BASE[1])).values
        yield folder, words, real


@parametrize(ATTACKS)
def test_nothing_that_is_written_holds_it(attack: Attack, run: Any) -> None:
    folder, _, real = run
    canary = attack.data["canary"]
    assert canary in json.dumps(real)  # the run itself works with it
    written = everything(folder)
    assert any(name.endswith("kept/config.yaml") for name in written)
    for name, content in written.items():
        assert canary.encode() not in (content or b"")
        assert canary not in name


@pytest.mark.parametrize("flags", [["--cfg", "job", "--resolve"], ["--cfg", "job"], []], ids=["resolved", "raw", "run"])
def test_nothing_that_is_printed_holds_it(
    flags: list[str], run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, words, _ = run
    monkeypatch.chdir(folder)
    for key, value in ENV.items():
        monkeypatch.setenv(key, value)
    assert main([*flags, *words]) == 0
    printed = "".join(capsys.readouterr())
    assert printed
    for attack in ATTACKS:
        assert attack.data["canary"] not in printed, attack
    # and where a command is refused: another seed, a wrong key beside a secret
    for wrong in ("seed=1", "+stage.notes.z={password:canaryZ1}", "seed='https://me:canaryZ2@host'"):
        said = refused([*words, wrong], capsys)
        assert not any(attack.data["canary"] in said for attack in ATTACKS)
        assert "canaryZ" not in said


def test_another_secret_is_no_other_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, words, _ = run
    monkeypatch.chdir(folder)
    for key in ENV:
        monkeypatch.setenv(key, "another-value-77")
    swapped = [word.replace("canaryA1", "canaryC1").replace("me:canaryB1", "you:canaryC2") for word in words]
    swapped = [word for word in swapped if "canary-password-3" not in word] + ["+stage.notes.x5=another-value-77"]
    config = compose([w for w in swapped if w not in BASE[:2]], Path(BASE[1]))
    assert RunFolder(config.path).open(config.stored) == "finished"


def test_an_old_config_with_secrets_is_compared_without_them(tmp_path: Path) -> None:
    old = {
        "name": "a",
        "seed": 0,
        "resume": "auto",
        "data": {"root": "https://me:pw@h"},
        "trainer": {},
        "api_key": "xyz",
    }
    folder = RunFolder(tmp_path / "a")
    folder.open(old)
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "last.ckpt").write_text("")
    assert folder.refusal(secrets.mask(old)) is None
    reason = folder.refusal(secrets.mask({**old, "seed": 1}))
    assert reason is not None
    assert "seed: 0 -> 1" in reason
    assert "pw@" not in reason


@pytest.mark.parametrize(
    "word", ["name=${oc.env:WANDB_API_KEY}", "runs_dir=${oc.env:WANDB_API_KEY}", f"name=hf_{'a1' * 20}"]
)
def test_no_folder_is_named_so(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "canaryEnv1")
    said = refused([*BASE, "stage=standin", word], capsys)
    assert "secret" in said
    assert "canaryEnv1" not in said
    assert list(tmp_path.iterdir()) == []


def test_names_of_models_are_none() -> None:
    names = "cls_token num_tokens tokens mask_token tokenizer token_dim max_tokens key_dim qk_key author pad_token_id"
    node = dict.fromkeys([*names.split(), "password_file", "monkey", "pass_through"], "kept")
    node |= {"num_token": 3, "token": 4, "auth": False, "empty": {"password": None, "secret": ""}}  # type: ignore[dict-item]
    assert secrets.mask(node) == node
    for text in ("https://host:8080/a@b", "https://host/@user", "s3://bucket/key", "ckpt=timm:vit_b", "a@b.org"):
        assert secrets.hide(text) == text


def test_a_sweep_over_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[list[str]] = []
    fixed, swept = "+stage.notes.password=canaryF1", "+stage.notes.api_key=canaryS1,canaryS2"
    asked = parse([*START[:-1], "name=sw", "-m", fixed, swept, "+stage.notes.url='https://me:canaryU1@h'"])
    assert sweep.main(asked, lambda command: told.append(command) or 1) == 1
    assert ["+stage.notes.password=canaryF1" in command for command in told] == [True, True]
    assert [f"+stage.notes.api_key=canaryS{i}" in told[i - 1] for i in (1, 2)] == [True, True]
    assert all("+stage.notes.url='https://me:canaryU1@h'" in command for command in told)
    assert told[0][-1] != told[1][-1]  # each has a folder of its own
    printed = "".join(capsys.readouterr())
    for name, content in everything(tmp_path).items():
        assert "canary" not in name
        assert b"canary" not in (content or b"")
    assert "canary" not in printed
    assert "stage.notes.api_key=hidden2" in printed


def test_the_folder_of_the_user_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/me/project-2026")
    assert secrets.hide("no file /home/me/project-2026/x") == "no file /home/me/project-2026/x"
    assert secrets.mask({"root": "/home/me/project-2026/x"}) == {"root": "/home/me/project-2026/x"}


def test_a_value_of_a_letter_is_masked_where_it_stands_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("MY_TOKEN", "s")
    config = compose(["+data.note=${oc.env:MY_TOKEN}", "+data.more='${oc.env:MY_TOKEN}-x'", "name=sessions"])
    assert config.values["data"]["note"] == "s"
    assert config.shown["data"]["note"] == "***"
    assert config.shown["data"]["more"] == "***-x"
    assert config.shown["name"] == "sessions"
    assert secrets.hide("data.batch_size wants an integer") == "data.batch_size wants an integer"
    monkeypatch.setenv("MY_TOKEN", "cnry")
    compose(["+data.note=${oc.env:MY_TOKEN}"])
    assert secrets.hide("the cnry sings") == "the *** sings"
