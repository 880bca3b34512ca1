"""task=transcribe: CTC against the paper's forward recursion, the reading of paths, error rates, and a whole run."""

import csv
import json
import math
import re
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ssl_lightning import load_model
from ssl_lightning.__main__ import main
from ssl_lightning.core import progress
from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.models.audio import MelConvNet
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import Constant
from ssl_lightning.stages.listed import write_listed
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.transcribe import Transcribe, needed

TEXTS = ("ab", "aab", "b", "")


def task_of(*texts: str) -> Transcribe:
    return Transcribe().prepare(texts, torch.arange(len(texts)))


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


def test_insertions_and_what_is_read_of_an_empty_text_are_errors() -> None:
    task = task_of("ab", "")
    read = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0, 0], [1, 0, 1, 2], [2, 1, 0, 0]]), 3).float()
    for _ in range(2):  # nothing is left of an earlier measurement
        found = task.measure(read, torch.tensor([0, 0, 1]))  # "ab" of "ab", "aab" of "ab", "ba" of ""
        assert found["cer"] == pytest.approx((0 + 1 + 2) / (2 + 2 + 0))
        assert found["wer"] == pytest.approx((0 + 1 + 1) / (1 + 1 + 0))
        assert task.measure(read[:1], torch.tensor([0])) == {"cer": 0, "wer": 0}


class Heard(nn.Module):
    """Logits (B, K, L) as a map."""

    out_dim, strides = 3, (1,)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)

    def feature_map(self, x: Tensor) -> Tensor:
        return x


def test_each_validation_is_scored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = OptimizerRecipe(partial(SGD, momentum=0.9), base_lr=0.4, weight_decay=0.05, scheduler=Constant())
    module = Finetuner(Heard(), task_of("ab"), recipe)
    module.head = nn.Identity()
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    found = []
    for path in ([2, 2, 0], [1, 2, 0], [1, 0, 0]):  # "b", "ab", "a"
        x = torch.nn.functional.one_hot(torch.tensor([path]), 3).float().transpose(1, 2)  # (B, K, L)
        module.on_validation_epoch_start()
        module.validation_step(Batch([x], torch.tensor([0]), torch.tensor([0])), 0)
        module.on_validation_epoch_end()
        found.append(-module.picking[0])
    assert found == [0.5, 0.0, 0.5]


def test_texts_are_listed_the_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_of("ab", "=b", "b\n,a", "")
    assert task.names == ("\n", ",", "=", "a", "b")
    paths = [[4, 0, 5, 0, 0], [3, 0, 4, 5, 0], [5, 0, 0, 0, 0], [3, 4, 3, 4, 0], [1, 1, 1, 1, 1]]
    outputs = torch.nn.functional.one_hot(torch.tensor(paths), 6).float()
    labels, indices = torch.tensor([0, 1, 2, 3, -1]), torch.tensor([0, 1, 2, 4, 5])
    data: Any = SimpleNamespace(test_set=SimpleNamespace(paths=["a.wav", "-b.wav", "@c/c.wav", "no", "d.wav", "e.wav"]))
    progress.watched(True)
    try:
        write_listed(task, data, Features(outputs, labels, indices), tmp_path)
    finally:
        progress.watched(False)
    with open(tmp_path / "texts.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "text", "read_as", "errors"],
        ["d.wav", "", "'=a=a", "4"],
        ["'@c/c.wav", "b\n,a", "b", "3"],
        ["'-b.wav", "'=b", "'=ab", "1"],
        ["a.wav", "ab", "ab", "0"],
    ]
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 of 4 test items without an error; all in ")
    assert told[2] == r"  path c.wav, text b\n,a, read_as b, errors 3"
    assert [line.rpartition(" ")[2] for line in told[1:]] == ["4", "3", "1", "0"]
    keep = labels >= 0
    errors = sum(int(row[3]) for row in rows[1:])
    assert task.measure(outputs[keep], labels[keep])["cer"] == pytest.approx(errors / len("ab=bb\n,a"))
    data.test_set.paths = None
    write_listed(task, data, Features(outputs, labels, indices), tmp_path)
    assert "\n4,,'=a=a,4\n" in (tmp_path / "texts.csv").read_text()


def test_a_list_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data: Any = SimpleNamespace(test_set=SimpleNamespace(paths=None))
    one = Features(torch.zeros(1, 2, 3), torch.tensor([0]), torch.tensor([0]))
    write_listed(task_of("ab"), data, one, tmp_path / "absent")
    said = capsys.readouterr().err
    assert said.startswith("texts.csv was not written: ")
    assert said.count("\n") == 1
    write_listed(Classify.of(2), data, one, tmp_path)
    assert not list(tmp_path.iterdir())


def test_fewer_errors_are_better() -> None:
    task = task_of("ab")
    assert verdict.against(0.1, 0.5, 100, task, "x") == "Better than x: CER 10.0 % against CER 50.0 %."
    assert verdict.against(0.5, 0.1, 100, task, "x").startswith("Worse than x: ")
    assert task.worst > 10  # an error rate may be more than 1


def test_a_text_needs_as_many_steps_as_it_has_changes() -> None:
    assert [needed(task_of(*TEXTS).spelled(text)) for text in TEXTS] == [2, 4, 1, 0]
    with pytest.raises(UserError, match=r"the text 'aab' needs 4 steps, and this network gives 3; give longer views"):
        task_of(*TEXTS).loss(torch.zeros(2, 3, 3), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="label smoothing is of classes"):
        task_of(*TEXTS).loss(torch.zeros(1, 4, 3), torch.tensor([0]), smoothing=0.1)


def test_characters_are_those_of_the_training_texts(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("ab", "ba", "Ab", "b!")
    task = Transcribe().prepare(texts, torch.tensor([0, 1, 0]))
    assert task.names == ("a", "b")
    assert task.head(3)(torch.zeros(1, 2, 3)).shape == (1, 2, 3)
    task.check(torch.tensor([0, 1, 0]), "training", "recording")
    assert capsys.readouterr().err == ""
    task.check(torch.tensor([1, 2, 3, 3]), "test", "recording")
    line = "3 of 4 test texts have characters that no training text has ('!', 'A'), which count as errors.\n"
    assert capsys.readouterr().err == line
    read = torch.nn.functional.one_hot(torch.tensor([[1, 2], [1, 2], [2, 0]]), 3).float()  # "ab", "ab", "b"
    found = task.measure(read, torch.tensor([0, 2, 3]))
    assert found == {"cer": pytest.approx((0 + 1 + 1) / 6), "wer": pytest.approx(2 / 3)}


def test_one_character_in_two_spellings_is_one() -> None:
    task = task_of("caf\u00e9", "cafe\u0301", "q\u0323")  # the last has no composed form: two characters
    assert task.names == ("a", "c", "f", "q", "\u00e9", "\u0323")
    assert task.spelled(task.texts[0]) == task.spelled(task.texts[1]) == [2, 1, 3, 5]


@pytest.mark.parametrize("texts", [(), ("",), ("", "")])
def test_no_text_at_all_is_refused(texts: tuple[str, ...]) -> None:
    task = task_of(*texts)
    with pytest.raises(UserError, match="no training clip has a text, and task=transcribe takes one for each"):
        task.check(torch.arange(len(texts)), "training", "clip")
    some = Transcribe().prepare(("a", ""), torch.tensor([0]))
    with pytest.raises(UserError, match="no test clip has a text"):
        some.check(torch.tensor([1, 1]), "test", "clip")


def test_texts_that_the_steps_cannot_hold_are_told_before_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    sound, view = MelConvNet(mels=16, width=4, out_dim=6), torch.zeros(1, 1, 16, 40)  # 5 steps
    flags = [module.training for module in sound.modules()]
    state = {key: value.clone() for key, value in sound.state_dict().items()}

    def check(*texts: str, train: list[int], test: list[int]) -> None:
        task = Transcribe().prepare(texts, torch.tensor(train))
        task.check_network(sound, view, {"training": torch.tensor(train), "test": torch.tensor(test)}, "clip")

    check("ababa", "aab", "", train=[0, 1], test=[1, 2])
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"the text 'aabb' needs 6 steps, and this network gives 5; give longer views"):
        check("ab", "aabb", train=[0, 1], test=[0])
    with pytest.raises(UserError, match=r"the text 'a{57}\.\.\.' needs 199 steps"):
        check("ab", "a" * 100, train=[1], test=[0])
    check("ab", "aabb", "zzzzzzz", train=[0], test=[0, 1, 2, 2])
    told = (
        "3 of 4 test texts need more than the 5 steps of this network (up to 13), so they cannot be read without errors"
    )
    assert capsys.readouterr().err.startswith(told)
    assert flags == [module.training for module in sound.modules()]
    assert all(torch.equal(state[key], value) for key, value in sound.state_dict().items())


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


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


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


@pytest.mark.long
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
    assert found["finetune_cer"] <= found["finetune_wer"] < 0.8  # a text is one word: one error of three makes it wrong
    assert set(found["baselines"]) == {"from_scratch"}
    assert set(found["baselines"]["from_scratch"]) == {"finetune_cer", "finetune_wer"}
    assert re.match(
        r"(Better|Worse|No better) than training from scratch: CER [\d.]+ % against CER [\d.]+ %[.,]", found["verdict"]
    )
    assert "whole items" in found["protocol"]["finetune"]
    assert "random head" in found["protocol"]["finetune"]
    state = torch.load(tmp_path / "runs" / "b" / "finetune" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["task"]["names"] == ["a", "b"]
    with open(tmp_path / "runs" / "b" / "texts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28
    assert sum(int(row["errors"]) for row in rows) / sum(len(row["text"]) for row in rows) == pytest.approx(
        found["finetune_cer"]
    )
    assert all(Path(row["path"]).name.startswith("y_") for row in rows)
    told = load_model(tmp_path / "runs" / "b").predict([row["path"] for row in rows])
    assert [row["text"] for row in told] == [row["read_as"] for row in rows]
    assert main([*words, "stage=predict", "ckpt=runs/b", "name=c"]) == 0
    found = json.loads((tmp_path / "runs" / "c" / "results.json").read_text())
    assert (found["predicted"], found["unreadable"]) == (found["labelled"], 0)
    with open(tmp_path / "runs" / "c" / "predictions.csv", newline="") as file:
        all_rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {row["text"] for row in told} == {all_rows[Path(row["path"]).name]["text"] for row in told}
    assert found["predict_cer"] >= 0


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


WORDS = ["data=audio", "data.sample_rate=8000", "data.length=4000", "data.mels=16", "data.num_workers=0"]
WORDS += ["trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The strings, and a run to fine-tune."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "r").mkdir()
    strings(folder / "r")
    words = [
        *WORDS,
        f"data.root={folder}/r",
        "method=simclr",
        "experiment=cpu",
        "backbone.width=8",
        "data.batch_size=14",
    ]
    assert main([*words, f"runs_dir={folder}", "name=a", "trainer.max_epochs=1", "stage.judge=false"]) == 0
    return folder


def fine_tune(there: Path, name: str, rows: list[tuple[str, ...]], *more: str) -> int:
    """`rows`: (text, speaker) of each file, in the order of their names."""
    files = sorted(path.name for path in (there / "r").glob("*.wav"))
    write(
        there / f"{name}.csv", [("path", "text", "speaker"), *((f, *row) for f, row in zip(files, rows, strict=True))]
    )
    words = [*WORDS, f"data.root={there}/r", f"data.labels={there}/{name}.csv", "data.label_column=text"]
    stage = ["stage=finetune", f"ckpt={there}/a", "task=transcribe", "stage.epochs=1", "stage.batch_size=8"]
    return main([*words, *stage, f"runs_dir={there}", f"name={name}", *more])


def result(there: Path, name: str) -> dict[str, Any]:
    return json.loads((there / name / "results.json").read_text())  # type: ignore[no-any-return]


def names_of(there: Path, name: str, which: str = "last") -> list[str]:
    path = there / name / "finetune" / "checkpoints" / f"{which}.ckpt"
    return list(torch.load(path, weights_only=True)["task"]["names"])


SPEAKERS = ["x"] * 28 + ["y"] * 28
APART = ["data.group=speaker", "data.held_out=y"]


def test_texts_are_taken_as_they_stand_and_need_not_repeat(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each another: no class is on both sides of the split, and shares of texts are shares of rows."""
    rows = [(f'{i:02}|"{i}', speaker) for i, speaker in enumerate(SPEAKERS)]
    assert (
        fine_tune(there, "unique", rows, *APART, "data.length=8000", "stage.picking=0.25", "data.label_fraction=0.5")
        == 0
    )
    assert "28 recordings with 28 different texts, of 1 group to train on" in capsys.readouterr().err
    assert result(there, "unique")["labels"] == 14
    assert "picked on 4 of the labels" in result(there, "unique")["protocol"]["finetune"]
    assert set(names_of(there, "unique", "best")) > set('|"')
    decimal = [(f"{i}.{i}", speaker) for i, speaker in enumerate(SPEAKERS)]  # no number to be predicted
    assert fine_tune(there, "decimal", decimal, "stage.picking=0", "data.test_fraction=0.25", "data.length=8000") == 0
    assert "42 recordings with 42 different texts to train on, 14 recordings" in capsys.readouterr().err


def test_recordings_that_are_cut_are_counted(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("ab"[i % 2], speaker) for i, speaker in enumerate(SPEAKERS)]
    assert fine_tune(there, "cut", rows, *APART, "stage.picking=0", "data.length=2400") == 0
    line = "32 of 56 labelled recordings do not fit into a view and are cut; to keep them whole, give data.length=3600."
    assert line in capsys.readouterr().err
    more = ["data.length=3600", "data.seconds=0.3", "data.label_fraction=0.5", "stage.picking=0"]
    assert fine_tune(there, "seconds", rows, *APART, *more) == 0
    assert re.search(r"\d+ of 42 labelled recordings .* whole, give data\.seconds=1\.\n", capsys.readouterr().err)
    assert fine_tune(there, "whole", rows, *APART, "data.length=3600", "stage.picking=0") == 0
    assert "do not fit" not in capsys.readouterr().err


def test_rows_without_a_text_are_left_out(there: Path) -> None:
    rows = [("" if i % 4 == 0 else "aa", speaker) for i, speaker in enumerate(SPEAKERS)]
    assert fine_tune(there, "some", rows, *APART, "stage.picking=0") == 0
    assert result(there, "some")["labels"] == 21
    assert names_of(there, "some") == ["a"]  # an alphabet of one


@pytest.mark.parametrize(
    ("text", "more", "line"),
    [
        ("", [], "wrong.csv has a label; write"),
        ("a" * 300, [], "needs 599 steps, and this network gives 7; give longer views"),
        ("a", ["data.label_column=said"], "so there is no data.label_column=said"),
        (
            "a",
            ["data.label_column=null"],
            "has 2 columns beside the path (text, speaker), and this task reads one text",
        ),
        ("a", ["data.labels_per_class=3"], "set data.label_fraction instead"),
        ("a", ["stage.label_smoothing=0.1"], "task=transcribe has none; set stage.label_smoothing=0"),
    ],
)
def test_what_cannot_be_written_down_is_one_line(
    there: Path, text: str, more: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in there.iterdir())
    apart = [] if "null" in str(more) else APART
    assert fine_tune(there, "wrong", [(text, speaker) for speaker in SPEAKERS], *apart, "stage.picking=0", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert line in said
    (there / "wrong.csv").unlink()
    assert sorted(path.name for path in there.iterdir()) == before


def test_other_tasks_on_texts_are_refused_as_before(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{i}.5", speaker) for i, speaker in enumerate(SPEAKERS)]
    assert fine_tune(there, "classes", rows, *APART, "task=classify") == 2
    assert "nearly all of them different" in capsys.readouterr().err


def test_it_is_trained_on_whole_recordings(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = AudioDataModule.weak_views
    monkeypatch.setattr(AudioDataModule, "weak_views", lambda self, scale: asked.append(scale) or plain(self, scale))
    rows = [("ab"[i % 2], speaker) for i, speaker in enumerate(SPEAKERS)]
    assert fine_tune(there, "views", rows, *APART, "stage.picking=0", "stage.crop_scale=[0.2,0.4]") == 0
    assert set(asked) == {(1.0, 1.0)}


def test_a_label_curve_of_texts_has_no_line_of_a_linear_probe(there: Path) -> None:
    rows = [("ab" if i % 2 else "b", speaker) for i, speaker in enumerate(SPEAKERS)]
    files = sorted(path.name for path in (there / "r").glob("*.wav"))
    write(there / "lc.csv", [("path", "text", "speaker"), *((f, *row) for f, row in zip(files, rows, strict=True))])
    words = [*WORDS, f"data.root={there}/r", f"data.labels={there}/lc.csv", "data.label_column=text", *APART]
    words += ["stage=label_curve", f"ckpt={there}/a", "task=transcribe", "stage.fractions=[0.4,0.9]", "stage.steps=0"]
    words += ["stage.seeds=[0]", "stage.finetune.epochs=1", "stage.finetune.warmup_epochs=0"]
    assert main([*words, "stage.finetune.batch_size=8", f"runs_dir={there}", "name=lc"]) == 0
    found = result(there, "lc")
    assert {row["line"] for row in found["table"]} == {"finetune", "scratch"}
    assert {row["metric"] for row in found["table"]} == {"cer"}
