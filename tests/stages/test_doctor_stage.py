"""stage=doctor: what does not fit is said with its mark, steps are timed, and nothing is kept."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.__main__ import main
from ssl_lightning.cli import run as build
from ssl_lightning.cli.compose import compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.finding import Finding
from ssl_lightning.losses.nt_xent import NTXent
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.heads import MLP
from ssl_lightning.models.resnet import resnet
from ssl_lightning.parts.queue import Queue
from ssl_lightning.stages import doctor, doctor_data, doctor_method
from tests.stages.tiny_run import TinyData, a_folder, a_trainer, two_views

Length = doctor_method.Length


def simclr(backbone: nn.Module | None = None) -> SimCLR:
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    return SimCLR(backbone or ConvNetSmall(4), partial(MLP, hidden_dim=8, out_dim=8), NTXent(0.2), optimizer=optimizer)


def examined(
    tmp_path: Path, data: TinyData, capsys: pytest.CaptureFixture[str], **more: Any
) -> tuple[dict[str, Any], str]:
    folder = a_folder(tmp_path / "out")
    arguments = {"method": simclr(), "data": data, "trainer": partial(a_trainer(tmp_path), max_epochs=4), "run": folder}
    found = doctor.run(**(arguments | {"method_name": "simclr", "data_name": "tiny", "seconds": 5.0} | more))
    assert [file.name for file in folder.path.iterdir()] == ["doctor.json"]
    return found | json.loads((folder.path / "doctor.json").read_text()), capsys.readouterr().out


def lines(found: dict[str, Any], mark: str) -> list[str]:
    return [line["what"] for line in found["findings"] if line["mark"] == mark]


def test_a_page_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = TinyData(train=600, test=120, views=two_views(), num_workers=0)
    found, page = examined(tmp_path, data, capsys)
    assert lines(found, "bad") == []
    assert found["steps"] == 4 * (600 // 32)
    assert found["seconds_per_step"] > 0
    assert found["seconds_per_epoch"] == pytest.approx(found["seconds_per_step"] * 18, rel=0.1, abs=0.1)
    assert found["verdict"].startswith(f"0 bad, {found['warn']} to look at")
    for text in ("simclr on tiny", "machine", "data", "method", "cost", "600 images to train on", "checkpoints take"):
        assert text in page
    assert any("72 optimizer steps in all" in text for text in lines(found, "warn"))


def test_the_page_is_there_before_the_steps_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def timed(*_: Any) -> tuple[list[Finding], dict[str, Any]]:
        seen.append(capsys.readouterr().out)
        return [Finding("cost", "ok", "a cost")], {}

    monkeypatch.setattr(doctor, "_cost", timed)
    _, after = examined(tmp_path, TinyData(train=64, test=32, views=two_views(), num_workers=0), capsys)
    assert "images to train on" in seen[0]
    assert after.startswith("cost\n  ok    a cost\n")


def test_hours_on_a_cpu_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.Timer, "step", 300.0)  # seconds
    found, _ = examined(tmp_path, TinyData(train=600, test=120, views=two_views(), num_workers=0), capsys)
    assert [line["mark"] for line in found["findings"] if "hours the 72 steps" in line["what"]] == ["warn"]


def test_a_step_that_cannot_be_made_is_bad_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = TinyData(train=20, test=10, batch_size=64, views=two_views(), num_workers=0)
    found, page = examined(tmp_path, data, capsys)
    assert "a batch of 64 does not fit 20 training images" in lines(found, "bad")
    assert "data.batch_size=4" in page
    assert "seconds_per_step" not in found


def test_one_image_a_batch_is_told_by_the_method_s_own_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = partial(MLP, hidden_dim=8, out_dim=8)
    method = SimCLR(ConvNetSmall(4), head, NTXent(0.2), optimizer=partial(torch.optim.AdamW, lr=1e-3))
    found, _ = examined(tmp_path, TinyData(batch_size=1, views=two_views(), num_workers=0), capsys, method=method)
    assert any("too few for the BatchNorm" in text for text in lines(found, "bad"))


def test_a_step_that_would_take_minutes_is_told_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(ConvNetSmall):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training, "a step"
            time.sleep(0.05)
            return super().forward(x)

    monkeypatch.setattr(doctor, "LONGEST_STEP", 1.0)
    data = TinyData(train=600, test=120, views=two_views(), num_workers=0)
    found, page = examined(tmp_path, data, capsys, method=simclr(Slow(4)), seconds=1.0)
    assert found["seconds_per_step"] == pytest.approx(3 * 0.05 / 4 * 32 * 2, rel=0.3)
    assert any("by a forward pass of 4; none was made" in text for text in lines(found, "warn"))
    assert "checkpoints take" in page


@pytest.mark.parametrize(
    ("plan", "text", "fix"),
    [
        (Length(100, 8, 8, 12, 300, 3600), "BatchNorm averages over 8 images", "a larger batch"),
        (Length(100, 32, 32, 3, 1000, 3000), "compared with only 31 others", "method=byol"),
        (Length(400, 128, 128, 3, 1000, 3000), "3 steps an epoch", "data.batch_size=32"),
        (Length(4000, 128, 128, 31, 5, 155), "155 optimizer steps in all", "trainer.max_epochs=97"),
    ],
)
def test_batches_and_lengths(plan: Length, text: str, fix: str) -> None:
    found = doctor_method.look(simclr(), TinyData(views=two_views()), plan)
    assert any(text in line.says and fix in line.fix and line.level == "watch" for line in found)
    fine = doctor_method.look(simclr(), TinyData(views=two_views()), Length(50_000, 128, 128, 390, 200, 78_000))
    assert [line.level for line in fine] == ["ok"]


def test_queues_prototypes_stems_and_tokens() -> None:
    long = Length(1000, 64, 64, 15, 200, 3000)
    method = simclr()
    method.queue = Queue(4096, 8)
    found = said(doctor_method.look(method, TinyData(views=two_views()), long))
    assert "the queue of 4,096" in found.says
    assert found.fix == "method.queue_size=256"
    method = simclr()
    method.prototypes = nn.Linear(8, 3000, bias=False)
    found = said(doctor_method.look(method, TinyData(views=two_views()), long))
    assert found.says == "3,000 prototypes for 1,000 images: most stay empty"
    assert found.fix == "method.prototypes=128"
    net = resnet("resnet18", "imagenet")
    data = TinyData(views=two_views(32), image_size=32)
    found = said(doctor_method.look(simclr(net), data, Length(50_000, 128, 128, 390, 200, 78_000)))
    assert (found.says, found.fix) == ("the stem of large images leaves 1 x 1 places of 32 px", "backbone.stem=cifar")
    other = TinyData(views=two_views(16), image_size=32)
    found = said(doctor_method.look(simclr(), other, Length(50_000, 128, 128, 390, 200, 78_000)))
    assert found.says == "trained on views of 16 px and evaluated at 32 px"


def said(found: list[Finding]) -> Finding:
    (line,) = [line for line in found if line.level == "watch"]
    return line


def test_classes() -> None:
    data = TinyData(train=600, test=120)
    assert [line.level for line in doctor_data.look(data, 5.0)][:2] == ["ok", "ok"]
    rows = torch.cat([torch.arange(0, 600, 3), torch.tensor([1, 4])])  # 200 red, 2 green
    data = TinyData(train=600, test=120)
    data._sets = (data.train_set.subset(rows), data.test_set, data.train_set.subset(rows))
    found = next(line for line in doctor_data.look(data, 5.0) if "classes" in line.says)
    assert (found.level, found.says) == ("watch", "3 classes, from 0 (blue) to 200 (red) training images")


def test_names_on_the_page_are_plain() -> None:
    text = doctor.page([Finding("data", "watch", "a\x1b[31m.jpg", "x\ny")], "t")
    assert "\x1b" not in text
    assert "\\x1b[31m.jpg" in text


def test_the_command_looks_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["stage=doctor", "data=shapes", "data.size=64", "data.test_size=16", "backbone.width=4", "stage.seconds=2"]
    for more in ([], ["data.batch_size=16"], ["data.batch_size=256"]):
        assert main([*words, "data.batch_size=32", *more][: -1 if more else None] + more) == 0
        assert "optimizer steps" in capsys.readouterr().out or more == ["data.batch_size=256"]
    folder = tmp_path / "runs" / "doctor-simclr-shapes"
    assert sorted(file.name for file in folder.iterdir()) == ["config.yaml", "doctor.json", "results.json"]
    assert json.loads((folder / "doctor.json").read_text())["bad"] == 1
    assert main(["stage=doctor", "data=folder", "data.root=absent"]) == 2
    assert not (tmp_path / "runs" / "doctor-simclr-folder").exists()


@pytest.mark.parametrize(
    "word",
    ["trainer.max_epochs=50", "scheduler.warmup_epochs=3", "optimizer.base_lr=0.1", "callbacks=minimal", "logger=[csv]",
     "views.global_1.count=2", "data.bank_size=100", "callbacks.checkpoint.every_n_epochs=5"],
)  # fmt: skip
def test_it_takes_the_words_of_the_training(word: str) -> None:
    build.check(compose(["stage=doctor", "data=cifar10", word]))


def test_a_word_of_another_stage_is_refused() -> None:
    with pytest.raises(UserError, match=r"stage\.k"):
        build.check(compose(["stage=doctor", "stage.k=5"]))


def test_an_unknown_folder_is_a_user_error(tmp_path: Path) -> None:
    from ssl_lightning.modalities.image.sources.folder import Folder

    with pytest.raises(UserError, match="does not exist"):
        doctor_data.look(Folder(root=tmp_path / "absent"), 1.0)
