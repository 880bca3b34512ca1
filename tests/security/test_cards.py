"""What a stored card may say: ways to run code through one, none of which may work, and honest ones, which do."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import tests.security.evil_package  # noqa: F401  (importing it late would leave caches of its imports in the trap)
from ssl_lightning import load_backbone, load_model
from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.card import backbone_of
from ssl_lightning.runs.checkpoint import resolve_ckpt, save_backbone
from tests.security.attacks_cards import CARDS, HONEST, MODELS, OURS, REGRESS, RUNS, card, model, run
from tests.security.trap import CONVNET, Attack, Trap, attackers_modules, load_card, load_run, run_folder, weights_file


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trap:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Trap(tmp_path)


def refused(attack: Attack, error: UserError, trap: Trap) -> None:
    assert attack.refused in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1200
    assert trap.sprung == []


@pytest.mark.parametrize("attack", CARDS, ids=lambda attack: attack.name)
def test_a_card_runs_nothing(attack: Attack, trap: Trap) -> None:
    with pytest.raises(UserError) as refusal:
        load_card(trap, attack)
    refused(attack, refusal.value, trap)
    assert sorted(path.name for path in trap.folder.iterdir()) == [
        "bomb.pth", "evil_module.py", "foreign.safetensors", "outside",
    ]  # fmt: skip


@pytest.mark.parametrize("attack", RUNS, ids=lambda attack: attack.name)
def test_somebodys_run_runs_nothing(attack: Attack, trap: Trap) -> None:
    with pytest.raises(UserError) as refusal:
        load_run(trap, attack)
    refused(attack, refusal.value, trap)


def model_file(trap: Trap, told: Any, **more: torch.Tensor) -> Path:
    """Somebody's model: an honest network and head, and what the file says of them."""
    net, head = ConvNetSmall(width=4), torch.nn.Linear(16, 3)
    state = {f"backbone.{key}": value.contiguous() for key, value in net.state_dict().items()}
    state |= {f"head.{key}": value for key, value in head.state_dict().items()} | more
    text = told if isinstance(told, str) else json.dumps(told)
    metadata = {"format": "pt", "card": json.dumps(card(CONVNET, width=4)), "model": text}
    save_file(state, trap.folder / "foreign.safetensors", metadata)
    return trap.folder / "foreign.safetensors"


@pytest.mark.parametrize("attack", MODELS, ids=lambda attack: attack.name)
def test_a_model_runs_nothing(attack: Attack, trap: Trap) -> None:
    file = model_file(trap, trap.filled(attack.payload))
    with attackers_modules(trap), pytest.raises(UserError) as refusal:
        load_model(file, attack.trusted)
    refused(attack, refusal.value, trap)


def test_an_honest_model_is_loaded(trap: Trap) -> None:
    found = load_model(model_file(trap, model()))
    assert found(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert found.classes == ["a", "b", "c"]
    assert load_backbone(model_file(trap, model())).out_dim == 16


@pytest.mark.parametrize("name", ["tail.weight", "head.extra", "backbone.extra", "norm.running_mean", "x"])
def test_a_tensor_of_no_part_is_refused(name: str, trap: Trap) -> None:
    with pytest.raises(UserError, match=name.rpartition(".")[2]):
        load_model(model_file(trap, model(), **{name: torch.zeros(3)}))


def test_a_model_with_a_strangers_backbone_is_refused(trap: Trap) -> None:
    for attack in CARDS[:6]:
        state = {"head.weight": torch.zeros(3, 16), "head.bias": torch.zeros(3)}
        metadata = {"card": json.dumps(trap.filled(attack.payload)), "model": json.dumps(model())}
        save_file(state, trap.folder / "m.safetensors", metadata)
        with attackers_modules(trap), pytest.raises(UserError) as refusal:
            load_model(trap.folder / "m.safetensors")
        refused(attack, refusal.value, trap)


def test_random_changes_of_a_model_are_a_line(trap: Trap) -> None:
    """What a file says of its model, changed by one value at a time: built, or refused in one line."""
    draws = random.Random(0)
    values = [None, [], {}, "", "x", -1, 0, 1.5, 10**12, True, [[1]], {"_target_": "os.system"}]

    def changed(value: Any) -> Any:
        if isinstance(value, dict) and value and draws.random() < 0.8:
            key = draws.choice(sorted(value))
            rest = {k: v for k, v in value.items() if k != key}
            return {**rest, key: changed(value[key])} if draws.random() < 0.9 else rest
        if isinstance(value, list) and value and draws.random() < 0.8:
            at = draws.randrange(len(value))
            return [*value[:at], changed(value[at]), *value[at + 1 :]]
        return draws.choice(values)

    honest = model({"_target_": REGRESS}, statistics={"mean": [1.0] * 3, "std": [2.0] * 3})
    lines = []
    for _ in range(150):
        try:
            load_model(model_file(trap, changed(honest)))
        except UserError as error:
            lines.append(str(error))
    assert len(lines) > 75
    assert not [line for line in lines if "\n" in line or len(line) > 1200]
    assert trap.sprung == []


def test_there_are_enough_attacks() -> None:
    names = [attack.name for attack in (*CARDS, *RUNS, *MODELS)]
    assert len(names) == len(set(names)) > 60


@pytest.mark.parametrize("stage", ["knn", "export"])
@pytest.mark.parametrize("reference", ["file", "run"])
def test_a_stage_on_a_strangers_weights(
    stage: str, reference: str, trap: Trap, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line gets there by another way than `load_backbone`."""
    payload = trap.filled(CARDS[1].payload)
    ckpt = weights_file(trap, payload) if reference == "file" else run_folder(trap, run(payload["backbone"]))
    little = ["data=shapes", "data.size=8", "data.test_size=8", "trainer=cpu"] if stage != "export" else []
    words = [f"stage={stage}", f"ckpt={ckpt}", *little]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "is no encoder of ours" in err
    assert err.count("\n") == 1
    assert trap.sprung == []


def test_trust_is_not_inherited_from_a_run(trap: Trap, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = run_folder(trap, run({"_target_": f"{OURS}.Net"}, trusted_packages=["tests"]))
    assert main(["stage=export", f"ckpt={ckpt}"]) == 2
    assert "trusted_packages=[tests]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("honest", "trusted"), HONEST, ids=[f"{i}-{row[0]['backbone']}"[:60] for i, row in enumerate(HONEST)]
)
def test_honest_cards_are_built(honest: dict[str, Any], trusted: tuple[str, ...], tmp_path: Path) -> None:
    """Written by the run, read by somebody else: the same network."""
    net = backbone_of(honest, trusted).eval()
    described = {name: value for name, value in honest.items() if name not in ("backbone", "out_dim")}
    file = save_backbone(net, honest["backbone"], tmp_path, **described)
    again = load_backbone(file, trusted)
    assert type(again) is type(net)
    assert again.out_dim == net.out_dim
    assert all((value == net.state_dict()[name]).all() for name, value in again.state_dict().items())


def test_a_run_that_began_with_pretrained_weights_still_loads(trap: Trap) -> None:
    """Its config asks for a download; what is loaded is in its checkpoint."""
    node = {"_target_": "ssl_lightning.models.timm.timm_backbone", "name": "resnet10t", "pretrained": True}
    found = resolve_ckpt(run_folder(trap, run(node)))
    assert found.card is not None
    assert found.card["backbone"]["pretrained"] is False
    assert backbone_of(found.card).out_dim == 512


def test_text_is_one_package_and_not_its_letters(trap: Trap) -> None:
    file = weights_file(trap, card(CONVNET, width=4))
    with pytest.raises(UserError, match="'posix' is not a package of your own"):
        load_backbone(file, trusted="posix")
    assert load_backbone(file, trusted="tests").out_dim == load_backbone(file).out_dim


def test_the_config_of_an_old_run_still_tells_its_backbone(trap: Trap) -> None:
    folder = run_folder(trap, yaml.safe_dump(run({"_target_": CONVNET, "width": 4})))
    found = resolve_ckpt(folder)
    assert found.card == {
        "backbone": {"_target_": CONVNET, "width": 4},
        "image_size": 32,
        "method": "simclr",
        "data": "shapes",
    }
    assert load_backbone(folder).out_dim == backbone_of(found.card).out_dim
