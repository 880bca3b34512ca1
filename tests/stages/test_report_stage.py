"""stage=report: the page again, for whole folders and for those without features, as often as one likes."""

import json
import shutil
from pathlib import Path

import pytest

from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.run import check, compose, run
from ssl_lightning.core.errors import UserError
from ssl_lightning.reports import kept, maps
from tests.reports.test_html import is_quiet
from tests.reports.test_page import SMALL

REPORT = ("stage=report", "trainer=cpu", "stage.maps=[]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(compose([*SMALL.split(), f"runs_dir={runs}"]))
    return runs / "made"


def test_an_older_folder_gets_its_features_and_a_second_call_works(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    (folder / "report.npz").unlink()
    (folder / "report.html").unlink()
    results = (folder / "results.json").read_bytes()
    for _ in range(2):  # never "finished; nothing to do"
        (folder / "report.html").unlink(missing_ok=True)
        found = run(compose([*REPORT, f"ckpt={folder}"]))
        text = (folder / "report.html").read_text()
        is_quiet(text)
        assert 'class="map"' in text
        assert found["page"] == str(folder / "report.html")
    assert (folder / "results.json").read_bytes() == results
    mine, others = kept.read(folder).arrays, kept.read(made).arrays
    assert (mine["nearest"] == others["nearest"]).all()  # the same features
    assert (mine["found"] == others["found"]).all()
    report = json.loads((folder / "report-shapes/results.json").read_text())
    assert report["stage"] == "report"
    assert not (folder / "report-shapes/report.html").exists()


def test_more_maps_are_added_where_they_are_installed(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    if "tsne" not in maps.available():
        pytest.skip("scikit-learn is not installed")
    run(compose(["stage=report", "trainer=cpu", "stage.maps=[tsne]", f"ckpt={folder}"]))
    assert kept.read(folder).arrays["map_tsne"].shape == (120, 2)
    assert ">t-SNE</button>" in (folder / "report.html").read_text()


def test_a_map_that_is_not_installed_is_named_with_its_fix(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_lightning.stages.report.available", lambda: ["pca"])
    with pytest.raises(UserError, match=r"UMAP needs umap-learn; pip install 'ssl-lightning\[maps\]'"):
        run(compose(["stage=report", "trainer=cpu", "stage.maps=[umap]", f"ckpt={made}"]))


def test_weights_that_lie_in_no_run_have_no_page(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    shutil.copy(made / "backbone.safetensors", file)
    with pytest.raises(UserError, match="is not in a run's folder; give ckpt=runs/<name>"):
        run(compose([*REPORT, f"ckpt={file}", f"runs_dir={tmp_path / 'runs'}", "data=shapes", "data.size=20"]))
    assert not list(tmp_path.glob("runs/*"))


def test_the_run_may_be_named_as_the_stage_s(made: Path) -> None:
    asked = parse(["stage=report", "trainer=cpu", "stage.maps=[]", f"stage.run={made}"])
    assert compose(asked.overrides).settings.ckpt == str(made)
    with pytest.raises(UserError, match=r"there is no 'stage\.run'"):  # of no other stage
        check(compose(parse(["stage=knn", f"ckpt={made}", "stage.run=x"]).overrides))
