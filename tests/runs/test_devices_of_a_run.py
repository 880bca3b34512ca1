"""A run's config on another number of devices: shared anew where the images of a step can stay, refused otherwise."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli import run as build
from ssl_lightning.cli.run import compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import devices
from ssl_lightning.runs.folder import RunFolder, differences, fingerprint


def config(batch: int = 32, stage: dict[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
    """A stored config with this batch per device."""
    return {
        **{"name": "a", "seed": 0, "resume": "auto"},  # without which it would be no config of a run
        "data": {"batch_size": batch, "size": 5},
        "stage": stage or {"_target_": "x"},
        "trainer": {"devices": 1, "num_nodes": 1, "strategy": "auto", "accelerator": "cpu", **trainer},
    }


def begun(path: Path, stored: dict[str, Any]) -> RunFolder:
    folder = RunFolder(path)
    folder.open(stored)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "last.ckpt").write_text("weights")
    return RunFolder(path)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"devices": 3}, 3),
        ({"devices": "3"}, 3),
        ({"devices": [0, 2]}, 2),
        ({"devices": "0,2,5"}, 3),
        ({"devices": "1,"}, 1),
        ({"devices": 4, "num_nodes": 2}, 8),
        ({"devices": "auto"}, 1),
        ({"devices": "auto", "accelerator": "gpu"}, None),
        ({"devices": -1, "accelerator": "auto"}, None),
        ({"devices": "-1", "accelerator": "gpu"}, None),
    ],
)
def test_devices_are_counted_as_lightning_reads_them(trainer: dict[str, Any], expected: int | None) -> None:
    assert devices.count(config(**trainer)) == expected


@pytest.mark.parametrize(
    ("now", "share"),
    [
        (config(devices=1), 64),
        (config(devices=4, strategy="ddp"), 16),
        (config(devices=[0, 1, 2, 3], strategy="ddp_find_unused_parameters_true"), 16),
        (config(devices=4, num_nodes=2, strategy="ddp"), 8),
        (config(batch=64, devices=1), 64),  # who reckons himself is right, too
    ],
)
def test_the_images_of_a_step_stay(tmp_path: Path, now: dict[str, Any], share: int) -> None:
    made = config(devices=2, strategy="ddp")
    folder = begun(tmp_path / "a", made)
    assert folder.open(now) == "resumed"
    values, said = devices.shared_anew(folder.origin, now)
    assert values["data"]["batch_size"] == share
    count = devices.count(now)
    expected = f"data.batch_size is {share} with {count} device{'s' if count != 1 else ''}, as it was 32 with 2"
    assert said == (None if now["data"]["batch_size"] == share else expected)
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text()) == made
    assert RunFolder(tmp_path / "a").open(made) == "resumed"  # and with two again
    assert now == {**now}


def test_a_stage_with_a_batch_of_its_own_shares_that(tmp_path: Path) -> None:
    made, now = (config(128, {"batch_size": 16}, devices=n) for n in (2, 1))
    folder = begun(tmp_path / "a", made)
    assert folder.open(now) == "resumed"
    values, _ = devices.shared_anew(folder.origin, now)
    assert (values["data"]["batch_size"], values["stage"]["batch_size"]) == (128, 32)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (config(devices=3), "trainer.devices: 2 -> 3 .*64 images a step cannot be shared among 3 devices"),
        (config(batch=16, devices=1), "data.batch_size: 32 -> 16; trainer.devices: 2 -> 1"),
        (config(batch=64, devices=2, strategy="ddp"), "data.batch_size: 32 -> 64"),
        (config(devices=1, precision="bf16-mixed"), r"\(trainer.precision: \(absent\) -> bf16-mixed\)"),
        (config(devices=4, strategy="fsdp"), r"\(trainer.strategy: ddp -> fsdp\)"),
    ],
)
def test_what_changes_the_images_of_a_step_is_refused(tmp_path: Path, now: dict[str, Any], words: str) -> None:
    folder = begun(tmp_path / "a", config(devices=2, strategy="ddp"))
    with pytest.raises(UserError, match=words.replace(" .*", ".*")) as refused:
        folder.open(now)
    assert "\n" not in str(refused.value)


def test_what_the_machine_chose_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """devices=auto on four GPUs, then on two: the config is the same, the images of a step are to stay so."""
    made = config(devices="auto", accelerator="gpu")
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    folder = begun(tmp_path / "a", made | devices.chosen(made))
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    now = made | devices.chosen(made)
    assert (devices.count(folder._stored()), devices.count(now)) == (4, 2)
    assert folder.open(now) == "resumed"
    values, said = devices.shared_anew(folder.origin, now)
    assert values["data"]["batch_size"] == 64
    assert said
    assert devices.chosen(config(devices=2)) == {}
    assert fingerprint(now) == fingerprint(made)
    assert differences(made, made | {"processes": 4}) == []


def test_a_run_is_called_with_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"runs_dir={tmp_path}", "name=a", "data.batch_size=32"]
    two, one = compose([*words, "trainer=ddp_cpu"]), compose([*words, "trainer=cpu"])
    began = begun(tmp_path / "a", two.stored)
    taken: list[Any] = []
    monkeypatch.setattr(
        build,
        "_call_stage",
        lambda config, folder, notes, crew: taken.append((config, folder, notes)) or ({"done": 1}, None),
    )
    build.run(one)
    config, folder, notes = taken[0]
    said = "\n".join(notes)
    assert config.values["data"]["batch_size"] == 64
    assert config.values["trainer"]["devices"] == 1
    assert said.count("data.batch_size is 64 with 1 device, as it was 32 with 2") == 1
    assert folder.origin == two.stored == yaml.safe_load((began.path / "config.yaml").read_text())
    assert one.values["data"]["batch_size"] == 32
