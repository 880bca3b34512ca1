"""Audio through the real command line: pretraining, every stage on the run, a run that goes on, its encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.data.base import Drawn
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.runs.checkpoint import resolve_ckpt

FEW = ["data.size=48", "data.test_size=24", "data.batch_size=16", "data.seconds=0.4", "data.sample_rate=4000"]
FEW += ["data.length=1280", "data.mels=16", "data.window=0.05", "trainer.log_every_n_steps=1"]
NET = ["backbone.width=4", "backbone.out_dim=8", "method.projector.hidden_dim=16", "method.projector.out_dim=8"]
SMALL = [*FEW, *NET]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run; each stage on it has its own folder beside."""
    folder = tmp_path_factory.mktemp("audio")
    assert main(["data=tones", "name=run", f"runs_dir={folder}", "trainer.max_epochs=2", *SMALL]) == 0
    return folder


def test_it_is_judged_beside_random_weights_and_mel_statistics(runs: Path) -> None:
    found = results(runs / "run")
    assert set(found["baselines"]) == {"random_init", "mel_statistics"}
    assert found["quality"]["alignment"] is not None
    assert (runs / "run" / "views.png").exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["stage=knn"], "knn_top1"),
        (["stage=linear"], "linear_top1"),
        (["stage=embed"], "samples"),
        (["stage=export"], "out_dim"),
        (["stage=finetune", "stage.epochs=1"], "labels"),
        (["stage=linear", "stage.augmented=true", "stage.epochs=1"], "labels"),
    ],
)
def test_each_stage_takes_the_run_with_its_data(words: list[str], key: str, runs: Path) -> None:
    """Neither data= nor any of its sizes is typed."""
    name = words[0].removeprefix("stage=") + str(len(words))
    assert main([*words, f"ckpt={runs}/run", f"name={name}", f"runs_dir={runs}", "trainer.log_every_n_steps=1"]) == 0
    assert key in results(runs / name)


@pytest.mark.parametrize("method", ["rotation", "jigsaw", "relative_position", "colorization"])
def test_a_method_of_images_is_refused_in_a_line(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"method={method}", "data=tones", "name=run", f"runs_dir={tmp_path}", *FEW]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: method={method} is made for image data, and this is audio; choose another method")
    assert not (tmp_path / "run").exists()


def test_two_lines_give_the_encoder_and_its_card_says_how_it_is_fed(runs: Path) -> None:
    net = load_backbone(str(runs / "run"))
    assert net(torch.zeros(2, 1, 16, 32)).shape == (2, 8)
    card = resolve_ckpt(runs / "run").card or {}
    assert {key: card[key] for key in ("modality", "sample_rate", "length", "representation", "mels", "window")} == {
        "modality": "audio", "sample_rate": 4000, "length": 1280, "representation": "logmel", "mels": 16,
        "window": 0.05,
    }  # fmt: skip
    assert len(card["mean"]) == len(card["std"]) == 1
    assert card["std"][0] > 0
    assert results(runs / "run")["method"] == card["method"] == "simclr"


def test_predictive_coding_is_read_in_its_context(runs: Path, tmp_path: Path) -> None:
    """As typed: its card builds encoder and context, also where the run was killed; a training may begin with them."""
    net = ["backbone.width=4", "backbone.out_dim=8", "method.context.hidden_dim=6", "method.offsets=[1,2]"]
    words = ["method=cpc", *FEW, "trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    assert main([*words, *net, "data=tones", "name=cpc"]) == 0
    found = load_backbone(str(tmp_path / "cpc"))
    assert found(torch.zeros(2, 1, 16, 32)).shape == (2, 6)
    finished = resolve_ckpt(tmp_path / "cpc").card or {}
    assert main([*words, "data=tones", "name=next", f"ckpt={tmp_path}/cpc", *net[2:]]) == 0
    (tmp_path / "cpc" / "backbone.safetensors").unlink()
    (tmp_path / "cpc" / "results.json").unlink()
    killed = resolve_ckpt(tmp_path / "cpc").card or {}
    assert {**finished, "out_dim": 6} == {**killed, "out_dim": 6}
    assert killed["modality"] == "audio"
    assert killed["backbone"]["encoder"]["out_dim"] == 8
    other = load_backbone(str(tmp_path / "cpc"))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), other.parameters(), strict=True))
    assert main(["stage=knn", f"ckpt={tmp_path}/cpc", "name=knn", f"runs_dir={tmp_path}"]) == 0
    assert results(tmp_path / "knn")["method"] == "cpc"


def test_other_data_are_fed_as_the_card_says(runs: Path) -> None:
    """A folder of one's own with the run's network: rate, bands and normalisation are those of its training."""
    config = compose(["stage=knn", f"ckpt={runs}/run", "data=audio", "data.root=sounds"]).values["data"]
    card = resolve_ckpt(runs / "run").card or {}
    assert {key: config[key] for key in ("sample_rate", "length", "mels", "mean", "std")} == {
        key: card[key] for key in ("sample_rate", "length", "mels", "mean", "std")
    }
    typed = compose(["stage=knn", f"ckpt={runs}/run", "data=audio", "data.root=sounds", "data.mels=40"]).values["data"]
    assert typed["mels"] == 40


def test_images_are_refused_for_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"ckpt={runs}/run", "stage=knn", "data=shapes", "data.size=64", "data.test_size=32", f"runs_dir={runs}"]
    assert main([*words, "name=refused"]) == 2
    assert "was trained on audio and the data is image" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_exactly(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within the second epoch: the weights are those of the run without a stop."""
    words = ["data=tones", f"runs_dir={runs}", "trainer.max_epochs=2", *SMALL]
    step, seen = AudioDataModule.training_views, []

    def dies(self: AudioDataModule, raw: Any) -> Drawn:
        seen.append(raw)
        if len(seen) == 5:
            raise RuntimeError("stopped here")
        return step(self, raw)

    monkeypatch.setattr(AudioDataModule, "training_views", dies)
    often = [*words, "callbacks.checkpoint.every_n_steps=1", "name=cut"]
    with pytest.raises(RuntimeError, match="stopped here"):
        main(often)
    assert (runs / "cut" / "checkpoints" / "last.ckpt").exists()
    monkeypatch.setattr(AudioDataModule, "training_views", step)
    assert main(often) == 0
    one, other = (load_backbone(str(runs / name)).state_dict() for name in ("run", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("backbone=mel_convnet", "this network (MelConvNet) reads log-mels of sound, and these are images; choose"),
        ("backbone=wave_convnet", "this network (WaveConvNet) reads waves, and these are images; choose"),
        ("backbone=vit_mel", "this network (MelViT) reads log-mels of sound, and these are images; choose"),
        (
            "data=tones data.image_size=64",
            "there is no 'data.image_size' in this config. 'data.image_size' is a key of",
        ),
        (
            "data=tones data.size=1 data.batch_size=2",
            "a batch of 2 does not fit 1 training recording; set data.batch_si",
        ),
    ],
)
def test_what_is_of_another_kind_is_said(
    words: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [] if "size=1 " in words else ["data.size=48", "data.test_size=24", "data.batch_size=16"]
    assert main([*words.split(), "trainer.max_epochs=1", "name=run", f"runs_dir={tmp_path}", *few]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {line}")
    assert "data=folder" not in said


@pytest.mark.parametrize("method", ["byol", "vicreg", "dino", "supcon"])
def test_data_pick_networks_and_views_for_methods(method: str) -> None:
    config = compose([f"method={method}", "data=audio", "data.root=sounds"])
    assert config.choices["backbone"] == "mel_convnet"
    assert config.choices["views"] == ("audio_local" if method == "dino" else "audio")


def test_waves_have_networks_and_views_of_their_own() -> None:
    config = compose(["data=audio_wave", "data.root=sounds", "experiment=cpu"])
    assert (config.choices["backbone"], config.choices["views"]) == ("wave_convnet", "audio_wave")
    assert config.values["data"]["representation"] == "wave"
    masked = compose(["method=mae", "data=audio_wave", "data.root=sounds", "experiment=cpu"])
    assert (masked.choices["backbone"], masked.choices["views"]) == ("transformer1d", "audio_wave_one")
    assert masked.values["backbone"]["patch_size"] == 160


@pytest.mark.parametrize("method", ["mae", "data2vec"])
def test_masked_methods_get_patches_of_log_mels(method: str) -> None:
    config = compose([f"method={method}", "data=tones"])
    assert (config.choices["backbone"], config.choices["views"]) == ("vit_mel", "audio_one")
    assert (
        config.values["backbone"] | {"mels": 64, "length": 7680, "sample_rate": 8000, "hop": 0.01}
        == config.values["backbone"]
    )
    assert instantiate(config.values["backbone"]).grid == (8, 12)
    longer = compose([f"method={method}", "data=tones", "data.length=5120", "data.mels=32"])
    assert instantiate(longer.values["backbone"]).grid == (4, 8)


def test_a_length_that_patches_do_not_divide_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "method=mae",
        "data=tones",
        "data.size=64",
        "data.test_size=32",
        "data.length=7000",
        "trainer.max_epochs=1",
    ]
    assert main([*words, "name=run", f"runs_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "error: patches of 8 do not divide log-mels of 64 bands x 87 frames; set data.mels to a multiple of 8 and "
        "data.length to one of 640 samples, or change backbone.patch_size"
    )
    assert not (tmp_path / "run").exists()
