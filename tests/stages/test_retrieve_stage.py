"""stage=retrieve: its tables, measures and gallery from the command line, on images and on audio."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.retrieval import search
from ssl_lightning.models.audio import MelConvNet
from ssl_lightning.reports import gallery, kept
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.stages import retrieved
from ssl_lightning.stages.retrieved import measured, near_duplicates
from tests.stages.tiny_run import a_run

SMALL = ["data.num_workers=0", "trainer=cpu"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders of coloured noise; two of the training images are one picture saved twice."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("test", 3)):
        for label, name in enumerate(("red", "<script>alert(1)<", "=blue")):
            folder = Path("photos") / split / name.replace("/", "")
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 150, (16, 16, 3), generator=generator)
                pixels[:, :, label] += 90
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i}.png")
    Image.open("photos/train/red/3.png").save("photos/train/red/copy.png", compress_level=0)
    a_run(Path("runs/a"))
    return tmp_path


def go(*words: str) -> dict[str, Any]:
    assert main(["stage=retrieve", "ckpt=runs/a", "data=folder", "data.root=photos", "name=out", *SMALL, *words]) == 0
    found: dict[str, Any] = json.loads(Path("runs/out/results.json").read_text())
    return found


def table(name: str) -> list[dict[str, str]]:
    with open(Path("runs/out") / name, newline="") as file:
        return list(csv.DictReader(file))


def test_test_items_query_the_training_items(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = go("stage.k=4")
    net = load_backbone("runs/a")
    x, y = net.embed("photos/train"), net.embed("photos/test")
    cosines, rows = search(y, x, 4)
    lines = table("neighbours.csv")
    assert len(lines) == 9 * 4
    train = [str(p) for p in sorted(Path("photos/train").rglob("*.png"))]
    test = [str(p) for p in sorted(Path("photos/test").rglob("*.png"))]
    wanted = [(test[q], train[row]) for q in range(9) for row in rows[q].tolist()]
    assert [
        (str(Path(n["query"]).relative_to(photos)), str(Path(n["neighbour"]).relative_to(photos))) for n in lines
    ] == wanted
    for line, cosine in zip(lines, cosines.flatten().tolist(), strict=True):
        assert float(line["cosine"]) == pytest.approx(cosine, abs=2e-6)
        same = Path(line["query"]).parent.name == Path(line["neighbour"]).parent.name
        assert line["same_class"] == str(int(same))
    names = {line["class"] for line in lines}
    assert "'=blue" in names, "no spreadsheet takes it for a formula"
    classes = sorted({Path(p).parent.name for p in train})
    both = [torch.tensor([classes.index(Path(p).parent.name) for p in paths]) for paths in (test, train)]
    mine = measured(Features(y, both[0], torch.arange(9)), Features(x, both[1], torch.arange(25)), rows, False)
    assert {key: found[key] for key in mine} == pytest.approx(mine)
    assert set(found["baselines"]) == {"random_init", "raw_pixels"}
    assert set(found["baselines"]["raw_pixels"]) == set(mine)
    (pair,) = table("near_duplicates.csv")
    assert {Path(pair["first"]).name, Path(pair["second"]).name} == {"3.png", "copy.png"}
    assert found["near_duplicates"] == 1
    page = Path("runs/out/report.html").read_text()
    assert "not on record" not in page
    assert "What was retrieved" in page
    assert "<script>alert" not in page
    assert "retrieval mAP" in capsys.readouterr().out


def test_each_item_of_a_split_queries_the_others(photos: Path) -> None:
    found = go("stage.within=train", "stage.k=3")
    assert (found["queries"], found["index"]) == (25, 25)
    lines = table("neighbours.csv")
    assert not any(line["query"] == line["neighbour"] for line in lines)
    first = {line["query"]: line["neighbour"] for line in lines if line["rank"] == "1"}
    copy = next(query for query in first if query.endswith("copy.png"))
    assert first[copy].endswith("red/3.png")


def test_a_file_and_a_folder_are_queries_and_it_looks_anew(photos: Path) -> None:
    found = go("stage.query=photos/test/red/0.png", "stage.k=5")
    assert "retrieve_map" not in found
    assert len(table("neighbours.csv")) == 5
    one = table("neighbours.csv")
    found = go("stage.query=photos/test", "stage.k=5")
    assert found["queries"] == 9
    same = [line for line in table("neighbours.csv") if line["query"].endswith("red/0.png")]
    assert [(n["neighbour"], n["cosine"]) for n in same] == [(n["neighbour"], n["cosine"]) for n in one]
    told = kept.read(Path("runs/out")).about["gallery"]
    assert len(told) == 9
    assert all(mark == "" for line in told for _, mark in line), "files have no class"


def test_without_labels_there_are_neighbours_and_no_measures(photos: Path) -> None:
    found = go("data.labels=false", "stage.k=2")
    assert not any(key.startswith("retrieve_") for key in found)
    assert "baselines" not in found
    assert {line["same_class"] for line in table("neighbours.csv")} == {""}
    assert found["near_duplicates"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.query=nowhere.png"], "stage.query=nowhere.png is neither a file nor a folder"),
        (["stage.query=empty"], "no image"),
        (["stage.query=photos", "stage.within=test"], "exclude each other"),
        (["stage.k=0"], "stage.k=0"),
        (["stage.same=1.5"], "stage.same=1.5"),
        (["stage.within=all"], "stage.within"),
        (["stage.cache=somewhere"], "stage.cache"),
    ],
)
def test_a_wrong_word_is_one_line(
    photos: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    more = ["data=folder", "data.root=photos", "name=out", *SMALL, *words]
    assert main(["stage=retrieve", "ckpt=runs/a", *more]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert not Path("runs/out").exists()


def test_the_gallery_of_a_strange_file_is_escaped_and_whole() -> None:
    about = {
        "gallery": [[["<b>x</b>", "right"], ["y", '"><script>'], "z"], 3, [[1, 2, 3]]],
        "gallery_pairs": [["<i>", "b"], None],
    }
    text = gallery.html_of(kept.Kept(about))
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<script>" not in text
    assert "<i>" not in text
    assert gallery.html_of(kept.Kept({"gallery": "no"})) == ""


def test_of_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    node = {"_target_": "ssl_lightning.models.audio.MelConvNet", "mels": 16, "width": 4, "out_dim": 8}
    shape = {"modality": "audio", "sample_rate": 4000, "length": 2000, "representation": "logmel"}
    mel = {"mels": 16, "window": 0.025, "hop": 0.01, "low": 60.0, "high": None, "mean": [0.0], "std": [1.0]}
    save_backbone(MelConvNet(mels=16, width=4, out_dim=8), node, "net", **shape, **mel, method="byol", data="tones")
    sizes = [
        "data.size=30",
        "data.test_size=12",
        "data.sample_rate=4000",
        "data.length=2000",
        "data.mels=16",
        "data.seconds=0.5",
    ]
    words = ["stage=retrieve", "ckpt=net/backbone.safetensors", "data=tones", *sizes, "name=out", "stage.k=3", *SMALL]
    assert main(words) == 0
    found = json.loads(Path("runs/out/results.json").read_text())
    assert 0 < found["retrieve_recall"] <= 1
    assert "mel_statistics" in found["baselines"]
    assert len(table("neighbours.csv")) == 36


def test_near_duplicates_hold_the_items_of_a_few_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    x, items = (torch.randn(20, dim, generator=draws).repeat_interleave(2, 0) for dim in (6, 30))
    index = Features(x, torch.zeros(40, dtype=torch.int64), torch.arange(40))
    asked: list[int] = []

    class Few:
        def views(self, split: str, numbers: list[int]) -> dict[int, Any]:
            asked.append(len(numbers))
            return {number: items[number] for number in numbers}

    def found() -> list[Any]:
        return near_duplicates(Few(), index, "train", 0.95, torch.device("cpu"))  # type: ignore[arg-type]

    whole = found()
    assert [pair[:2] for pair in sorted(whole)] == [(i, i + 1) for i in range(0, 40, 2)]
    assert asked == [40]
    monkeypatch.setattr(retrieved, "AT_ONCE", 8)
    assert found() == whole
    assert asked[1:] == [16, 16, 8]
