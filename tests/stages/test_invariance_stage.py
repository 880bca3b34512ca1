"""stage=invariance: the factors as they were drawn, the readout of each, and the files it leaves."""

import csv
import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.readout import Readout, read_factors
from ssl_lightning.modalities.audio.sources import Tones
from ssl_lightning.modalities.audio.tones import CLASSES, render
from ssl_lightning.modalities.image.sources import shapes_render
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.reports import invariance as charts
from ssl_lightning.runs import places
from ssl_lightning.stages import invariance
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shapes() -> Shapes:
    return Shapes(size=300, test_size=120, image_size=16, mean=(0.4,) * 3, std=(0.3,) * 3, batch_size=50)


def test_the_factors_are_those_that_were_drawn() -> None:
    data, rows = shapes(), torch.tensor([3, 14, 159])
    for split in ("train", "test"):
        drawn = shapes_render.render(rows, 64, 0, split)
        known = data.factors(split, rows)  # type: ignore[arg-type]
        assert torch.equal(known["class"], drawn.labels)
        tint = drawn.factors["ground_colour"]
        assert torch.equal(known["colour"], tint - tint.mean(1, keepdim=True))
        middle = torch.stack([drawn.boxes[:, [0, 2]].mean(1), drawn.boxes[:, [1, 3]].mean(1)], 1) / 64
        others = drawn.factors["companion_centre"].sum(1)
        assert float((known["position"] - (middle + others) / 3).abs().max()) < 0.04
        sizes = torch.cat([drawn.factors["radius"][:, None], drawn.factors["companion_radius"]], 1)
        torch.testing.assert_close(known["size"], sizes.mean(1))
        assert set(known) == {"class", "colour", "size", "position", "rotation", "texture"}


def test_those_of_tones_too() -> None:
    data, rows = Tones(size=50, test_size=20), torch.arange(12)
    for split in ("train", "test"):
        known, sound = data.factors(split, rows), render(rows, split)  # type: ignore[arg-type]
        assert torch.equal(known["class"], sound.labels)
        torch.testing.assert_close(10 ** known["loudness"] * 0.9, sound.waves.abs().amax(1), rtol=1e-4, atol=1e-5)
        assert torch.equal((known["length"].double() * 8000).round().long().sub(sound.lengths).abs() <= 1, rows >= 0)
        for row, label in enumerate(known["class"].tolist()):
            words = CLASSES[label].split("-")
            told = [int(known[name][row]) for name in ("melody", "timbre", "tremolo")]
            assert words == [
                pair[i] for pair, i in zip((("rising", "falling"), ("full", "hollow"), ("slow", "fast")), told)
            ]


def test_a_run_beside_another(tmp_path: Path) -> None:
    ours, theirs = a_run(tmp_path / "ours"), a_run(tmp_path / "<script>", seed=9)
    (theirs / "config.yaml").write_text(places.HEADER + yaml.safe_dump({key: {} for key in places.KEYS}))
    folder = a_folder(tmp_path / "out")
    data = shapes()
    found = invariance.run(judged(ours), data, a_trainer(tmp_path), folder, runs=[str(theirs), str(theirs)], items=200)
    assert list(found["kept"]) == ["ours", "<script>", "random weights", "raw pixels"]
    rows = torch.arange(200), torch.arange(120)
    raw = [data.raw_pixels(split, some) for split, some in zip(("train", "test"), rows)]  # type: ignore[arg-type]
    known = [data.factors(split, some)["colour"] for split, some in zip(("train", "test"), rows)]  # type: ignore[arg-type]
    wanted = read_factors(raw[0], {"colour": known[0]}, raw[1], {"colour": known[1]})["colour"]
    assert found["kept"]["raw pixels"]["colour"] == pytest.approx(wanted.kept, abs=1e-4)
    table = list(csv.DictReader((folder.path / "invariance.csv").read_text().splitlines()))
    assert len(table) == 4 * 6
    assert (folder.path / "invariance.png").stat().st_size > 5000
    page = (folder.path / "invariance.html").read_text()
    assert "&lt;script&gt;" in page
    assert ">texture<" in page
    assert "<script> " not in page.split("<h1>")[1]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    with pytest.raises(UserError, match="know no factors"):
        invariance.run(judged(run), TinyData(), a_trainer(tmp_path), folder)
    other = judged(run)
    other = dataclasses.replace(other, card={**other.card, "mean": [0.1] * 3})
    with pytest.raises(UserError, match="compare runs that are fed alike"):
        invariance._same_feed(judged(run), other)


def test_words() -> None:
    def column(**kept: float) -> dict[str, Readout]:
        return {name: Readout(value, 0.0) for name, value in kept.items()}

    columns = {
        "full": column(size=0.5, colour=0.1),
        "plain": column(size=0.5, colour=0.7),
        "random weights": column(size=0.5, colour=0.6),
        "raw pixels": column(size=0.0, colour=1.0),
    }
    said = charts.verdict(columns, 2)
    assert "full ignores colour (10 %, random weights 60 %)." in said
    assert "plain keeps what random weights keep" in said
    assert "colour is kept most by plain (70 %), least by full (10 %)" in said
    assert "size" not in said
    assert "Of these runs" not in charts.verdict({k: v for k, v in columns.items() if k != "plain"}, 1)


@pytest.mark.long
def test_from_the_command_line_on_sound(tmp_path: Path) -> None:
    small = ["data=tones", "data.size=60", "data.test_size=40", "data.batch_size=20", "backbone.width=8"]
    rest = ["trainer.max_epochs=1", "stage.judge=false", f"runs_dir={tmp_path}", "method.projector.out_dim=8"]
    assert main([*small, *rest, "name=a"]) == 0
    assert main(["stage=invariance", f"ckpt={tmp_path}/a", "stage.items=40"]) == 0
    table = (tmp_path / "a" / "invariance-tones" / "invariance.csv").read_text()
    assert "a,pitch," in table
    assert "random weights,tremolo," in table
    assert main(["stage=invariance", f"ckpt={tmp_path}/a", "stage.runs=[nowhere]"]) == 2


def test_a_name_is_no_formula_in_the_table() -> None:
    table = charts.as_csv({"=cmd()": {"size": Readout(0.5, 0.0)}})
    assert table.splitlines()[1].startswith("'=cmd(),size,0.5000")
