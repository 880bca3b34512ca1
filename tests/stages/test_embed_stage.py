"""stage=embed: what the files hold."""

import builtins
import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import Features, extract_parts
from ssl_lightning.stages import embed
from tests.stages.tiny_run import CLASSES, TinyData, a_folder, a_run, a_trainer, draw, judged


def expected(run: Path, count: int, seed: int) -> np.ndarray:
    x = (draw(count, seed)[0].permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.3
    with torch.no_grad():
        return load_backbone(run)(x).numpy()


def test_npz(tmp_path: Path) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    found = embed.run(judged(run), TinyData(), a_trainer(tmp_path), folder)
    assert found["images"] == {"train": 90, "test": 60}
    for split, count, seed in (("train", 90, 0), ("test", 60, 1)):
        content = np.load(folder.path / f"features_{split}.npz", allow_pickle=False)
        np.testing.assert_allclose(content["features"], expected(run, count, seed), rtol=1e-4, atol=1e-5)
        assert content["labels"].tolist() == draw(count, seed)[1].tolist()
        assert content["classes"].tolist() == CLASSES
        assert "paths" not in content


def test_unlabelled_images_embed_too(tmp_path: Path) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    data = TinyData(labelled=False)
    data.train_set.paths = data.test_set.paths = [f"photos/{i}.jpg" for i in range(90)]
    embed.run(judged(run), data, a_trainer(tmp_path), folder, splits=["train"])
    content = np.load(folder.path / "features_train.npz", allow_pickle=False)
    assert set(content["labels"].tolist()) == {-1}
    assert content["paths"][89] == "photos/89.jpg"
    assert not (folder.path / "features_test.npz").exists()


def test_each_row_has_the_path_of_its_own_image(tmp_path: Path) -> None:
    """Not of the image in the row's place: where files are broken rows and images part."""
    data = TinyData()
    data.test_set.paths = [f"photos/{i}.jpg" for i in range(60)]
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = torch.tensor([2, 3, 7, 41])
    features = Features(torch.rand(4, 3), data.test_set.labels[rows], rows)
    with embed.written([tmp_path / "some.npz", tmp_path / "some.parquet"]) as files:
        for file in files:
            file.add(features, data.test_set, "test")
    wanted = ["photos/2.jpg", "photos/3.jpg", "photos/7.jpg", "photos/41.jpg"]
    content = np.load(tmp_path / "some.npz", allow_pickle=False)
    assert content["paths"].tolist() == wanted
    assert content["indices"].tolist() == rows.tolist()
    table = parquet.read_table(tmp_path / "some.parquet")
    assert table["path"].to_pylist() == wanted
    assert table["class"].to_pylist() == [CLASSES[row % 3] for row in rows.tolist()]


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    embed.run(judged(run), TinyData(), a_trainer(tmp_path), folder, formats=["parquet"])
    table = parquet.read_table(folder.path / "features_test.parquet")
    features = np.stack(table["features"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(features, expected(run, 60, 1), rtol=1e-4, atol=1e-5)
    assert table["class"].to_pylist()[:3] == CLASSES
    assert table["path"].to_pylist()[0] is None


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path: Path) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    found = embed.run(judged(run), TinyData(), a_trainer(tmp_path), folder, formats=["csv", "npz"], splits=["all"])
    assert [Path(file).name for file in found["files"]] == ["features_all.csv", "features_all.npz"]
    rows = rows_of(folder.path / "features_all.csv")
    content = np.load(folder.path / "features_all.npz", allow_pickle=False)
    width = content["features"].shape[1]
    assert list(rows[0]) == ["path", "index", "label", "class", "split", *(f"f{i}" for i in range(width))]
    read = np.array([[row[f"f{i}"] for i in range(width)] for row in rows]).astype(np.float32)
    assert np.array_equal(read, content["features"])  # to the bit
    assert [row["split"] for row in rows] == ["train"] * 90 + ["test"] * 60
    assert [int(row["label"]) for row in rows] == content["labels"].tolist()
    assert [row["class"] for row in rows[:3]] == CLASSES
    assert {row["path"] for row in rows} == {""}


def test_a_csv_is_written_as_parts_come_and_is_whole_or_absent(tmp_path: Path) -> None:
    data = TinyData()
    path = tmp_path / "some.csv"
    with embed.written([path]) as (file,):
        file.add(Features(torch.rand(2000, 8), torch.zeros(2000), torch.arange(2000) % 60), data.test_set, "test")
        (part,) = tmp_path.iterdir()
        assert part.name != path.name  # under another name until it is whole,
        assert part.stat().st_size > 10_000  # and on the disk by now
    assert len(rows_of(path)) == 2000


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    source = TinyData().test_set
    source.classes = ["=cmd|' /C calc'!A0", "a,b", 'c"d\ne']
    source.paths = [f"@x{i}.png" for i in range(60)]
    source = source.with_targets(torch.arange(60.0)[:, None], ("f0",))
    with embed.written([tmp_path / "a.csv"]) as (file,):
        file.add(Features(torch.ones(3, 2), source.labels[:3], torch.arange(3)), source, "test")
    rows = rows_of(tmp_path / "a.csv")
    assert [row["class"] for row in rows] == ["'=cmd|' /C calc'!A0", "a,b", 'c"d\ne']
    assert [row["path"] for row in rows] == ["'@x0.png", "'@x1.png", "'@x2.png"]
    assert [row["target_f0"] for row in rows] == ["0.0", "1.0", "2.0"]  # a target that is named as a feature
    assert {row["f0"] for row in rows} == {"1"}


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
        return plain(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'ssl-lightning\[parquet\]'"):
        embed.need_pyarrow()


def test_one_file_for_all_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    monkeypatch.setattr(embed, "ROWS", 32)
    given = (judged(run), TinyData(labelled=False), a_trainer(tmp_path), folder)
    found = embed.run(*given, splits=["all"], formats=["npz", "parquet"])
    assert found["images"] == {"all": 150}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "features_all.npz",
        "features_all.parquet",
        "report.npz",
    ]
    table = parquet.ParquetFile(folder.path / "features_all.parquet")
    assert [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)] == [32, 32, 26, 32, 28]
    content = np.load(folder.path / "features_all.npz", allow_pickle=False)
    columns = table.read()
    features = np.stack(columns["features"].to_numpy(zero_copy_only=False))
    assert features.dtype == np.float32
    assert np.array_equal(features, content["features"])
    assert columns["split"].to_pylist() == content["split"].tolist() == ["train"] * 90 + ["test"] * 60
    wanted = np.concatenate([expected(run, 90, 0), expected(run, 60, 1)])
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
    assert set(columns["label"].to_pylist()) == {-1}
    assert columns.column_names == ["index", "label", "class", "path", "split", "features"]


def test_parts_are_measured_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "run")
    whole = embed.run(judged(run), TinyData(), a_trainer(tmp_path), a_folder(tmp_path / "a"))
    monkeypatch.setattr(embed, "ROWS", 32)
    parts = embed.run(judged(run), TinyData(), a_trainer(tmp_path), a_folder(tmp_path / "b"))
    assert (parts["quality"], parts["verdict"]) == (whole["quality"], whole["verdict"])


def test_a_broken_file_between_two_parts_leaves_each_image_once() -> None:
    batches = [a_batch([0, 1]), a_batch([2, 4]), a_batch([4, 5]), a_batch([6, 0])]  # 3 and 7 are broken
    found = list(extract_parts(lambda x: x, batches, torch.device("cpu"), 1))
    assert [part.indices.tolist() for part in found] == [[0, 1], [2, 4], [5], [6]]
    assert torch.cat([part.x for part in found]).flatten().tolist() == [0, 1, 2, 4, 5, 6]


def a_batch(rows: list[int]) -> Batch:
    indices = torch.tensor(rows)
    return Batch([indices.float().unsqueeze(1)], indices, indices)


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    def halfway() -> None:
        with embed.written([tmp_path / "a.npz", tmp_path / "a.parquet", tmp_path / "a.csv"]) as files:
            for file in files:
                file.add(Features(torch.rand(2, 3), torch.zeros(2), torch.arange(2)), TinyData().test_set, "test")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["formats", "splits"])
def test_an_empty_list_is_refused(tmp_path: Path, key: str) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    with pytest.raises(UserError, match=rf"stage\.{key}=\[\] leaves nothing to write"):
        embed.run(judged(run), TinyData(), a_trainer(tmp_path), folder, **{key: []})  # type: ignore[arg-type]
