"""task=transcribe: CTC against the paper's forward recursion, the reading of paths, error rates, and a whole run."""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.audio import MelConvNet
from ssl_lightning.tasks.transcribe import Transcribe, needed

TEXTS = ("ab", "aab", "b", "")


def task_of(*texts: str) -> Transcribe:
    return Transcribe().prepare(texts, None)


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [s for i, s in enumerate(path) if s and (i == 0 or path[i - 1] != s)]


def every_path(logs: Tensor, text: list[int]) -> Tensor:
    """log p(text) of logs (L, 1 + K): by going through all paths (equation 3)."""
    steps, symbols = logs.shape
    found = [
        torch.stack([logs[t, s] for t, s in enumerate(path)]).sum()
        for path in product(range(symbols), repeat=steps)
        if collapsed(path) == text
    ]
    return torch.stack(found).logsumexp(0)


def test_the_loss_is_the_sum_over_all_paths() -> None:
    torch.manual_seed(0)
    task = task_of(*TEXTS)
    outputs = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)  # 4 texts, 4 steps, blank + 2
    targets = torch.tensor([0, 1, 2, 3])
    naive = torch.stack([
        -every_path(x.log_softmax(1), task.spelled(text)) / max(1, len(text))
        for x, text in zip(outputs, TEXTS, strict=True)
    ])  # fmt: skip
    for reduction, wanted in (("mean", naive.mean()), ("sum", naive.sum())):
        loss = task.loss(outputs, targets, reduction=reduction)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(wanted.item(), abs=1e-12)
        mine, theirs = (torch.autograd.grad(x, outputs, retain_graph=True)[0] for x in (loss, wanted))
        assert (mine - theirs).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("path", "text"),
    [([1, 1, 0, 1, 2], "aab"), ([0, 0, 0, 0, 0], ""), ([2, 2, 1, 1, 0], "ba"), ([0, 1, 0, 0, 1], "aa")],
)
def test_a_path_is_read_as_its_text(path: list[int], text: str) -> None:
    outputs = torch.nn.functional.one_hot(torch.tensor([path]), 3).float()
    assert task_of(*TEXTS).read(outputs) == [text]
    assert task_of(*TEXTS).predict(outputs) == [{"text": text}]


def test_error_rates_count_edits_of_all_items_together() -> None:
    task = task_of("ab", "aabb", "b a")
    paths = torch.tensor([[2, 3, 0, 0, 0, 0, 0], [2, 0, 2, 0, 3, 0, 0], [0, 0, 0, 0, 0, 0, 3]])  # "ab", "aab", "b"
    assert task.names == (" ", "a", "b")
    found = task.measure(torch.nn.functional.one_hot(paths, 4).float(), torch.tensor([0, 1, 2]))
    assert found["cer"] == pytest.approx((0 + 1 + 2) / (2 + 4 + 3))
    assert found["wer"] == pytest.approx((0 + 1 + 1) / (1 + 1 + 2))


def test_a_text_needs_as_many_steps_as_it_has_changes() -> None:
    assert [needed(task_of(*TEXTS).spelled(text)) for text in TEXTS] == [2, 4, 1, 0]
    with pytest.raises(UserError, match=r"the text 'aab' needs 4 steps, and this network gives 3; give longer views"):
        task_of(*TEXTS).loss(torch.zeros(2, 3, 3), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="label smoothing is of classes"):
        task_of(*TEXTS).loss(torch.zeros(1, 4, 3), torch.tensor([0]), smoothing=0.1)


class Lines(nn.Module):
    """Pictures of lines, (B, 3, H, W) -> a map (B, 5, H / 2, W / 2)."""

    out_dim, strides = 5, (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 2, 2)

    def feature_map(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


def test_steps_are_those_of_time_or_of_columns() -> None:
    task, sound, image = task_of("a"), MelConvNet(mels=16, width=4, out_dim=6), Lines()
    steps = task.features(sound.eval(), torch.zeros(2, 1, 16, 40))
    assert steps.shape == (2, 5, 6)
    assert task.head(6)(steps).shape == (2, 5, 2)
    x = torch.randn(2, 3, 16, 32)
    found = task.features(image, x)
    assert found.shape == (2, 16, 5)
    assert torch.equal(found[:, 3], image.feature_map(x)[:, :, :, 3].mean(2))


def strings(folder: Path) -> Path:
    """Two tones, one for each character, after one another; two speakers, who differ in loudness."""
    time = np.arange(1200) / 8000
    tone = {c: np.sin(2 * math.pi * f * time) * np.hanning(1200) for c, f in (("a", 400), ("b", 1600))}
    rows = ["path,text,speaker"]
    for speaker, loud in (("x", 0.5), ("y", 0.2)):
        for take, text in enumerate(["".join(p) for n in (1, 2, 3) for p in product("ab", repeat=n)] * 2):
            name = f"{speaker}_{take}.wav"
            soundfile.write(folder / name, loud * np.concatenate([tone[c] for c in text]), 8000)
            rows.append(f"{name},{text},{speaker}")
    (folder / "t.csv").write_text("\n".join(rows))
    return folder


def test_tones_are_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    root = strings(tmp_path / "r")
    words = ["data=audio", f"data.root={root}", f"data.labels={root}/t.csv", "data.label_column=text"]
    words += ["data.group=speaker", "data.held_out=y", "data.sample_rate=8000", "data.length=4000", "data.mels=16"]
    words += ["trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "data.num_workers=0"]
    small = ["method=simclr", "experiment=cpu", "backbone.width=8", "backbone.out_dim=32", "data.batch_size=14"]
    assert main([*words, *small, "name=a", "trainer.max_epochs=1", "stage.judge=false"]) == 0
    given = ["ckpt=runs/a", "task=transcribe", "stage.picking=0", "stage.batch_size=14", "stage.base_lr=0.1"]
    assert main([*words, "stage=finetune", *given, "stage.epochs=30", "name=b"]) == 0
    found = json.loads((tmp_path / "runs" / "b" / "results.json").read_text())
    assert found["finetune_cer"] < 0.3
    assert set(found["baselines"]) == {"from_scratch"}
    assert "CER" in found["verdict"]
    state = torch.load(tmp_path / "runs" / "b" / "finetune" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["task"]["names"] == ["a", "b"]


def test_other_stages_say_whose_task_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.size=32", "data.test_size=16", "data.batch_size=16", "trainer.accelerator=cpu"]
    words += ["trainer.log_every_n_steps=1"]
    assert main(["method=simclr", "name=a", *words, "trainer.max_epochs=1", "stage.judge=false"]) == 0
    capsys.readouterr()
    assert main(["stage=knn", "ckpt=runs/a", "task=transcribe", "name=k", *words[:2]]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "error: task=transcribe works with stage=finetune only, and this is stage=knn; choose another task="
    )
