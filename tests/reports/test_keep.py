"""What `report.npz` keeps: the right neighbours, votes and duplicates; the same bytes each time; no pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn_predict
from ssl_lightning.reports import facts, keep, kept, thumbnails
from ssl_lightning.reports.keep import Keeper
from tests.stages.tiny_run import TinyData


def features_of(data: Any, split: str, dim: int = 12) -> Features:
    """The mean of each cell of a 2 x 2 grid, a stand-in for a network's."""
    views, labels, indices = [], [], []
    for batch in data.eval_loader(split):
        views.append(torch.nn.functional.adaptive_avg_pool2d(batch.views[0], 2).flatten(1))
        labels.append(batch.labels)
        indices.append(batch.indices)
    return Features(torch.cat(views)[:, :dim], torch.cat(labels), torch.cat(indices))


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Features, Features]:
    data = TinyData()
    return data, features_of(data, "train"), features_of(data, "test")


def test_neighbours_and_votes_are_those_of_the_knn(tiny: tuple[Any, Features, Features]) -> None:
    data, train, test = tiny
    about, arrays = keep.reduced(data, train, test, k=5, temperature=0.1)
    expected = knn_predict(train.x, train.labels, test.x, k=5, temperature=0.1)
    assert np.array_equal(arrays["found"], expected.numpy())
    cosines = torch.nn.functional.normalize(test.x, dim=1) @ torch.nn.functional.normalize(train.x, dim=1).T
    for row, place in enumerate(arrays["queries"]):
        best = cosines[place].topk(6 if arrays["nearest"].shape[1] == 6 else 5)
        assert arrays["nearest_cosines"][row] == pytest.approx(
            best.values[: arrays["nearest"].shape[1]].numpy(), abs=1e-5
        )
    assert about["bank"] == "train"
    assert about["bank_items"] == 90
    assert sorted({int(test.labels[place]) for place in arrays["queries"]}) == [0, 1, 2]  # each class is asked for


def test_axes_are_principal_and_keep_distances() -> None:
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    for rows in (x, x[:5]):  # more rows than columns, and fewer
        placed = keep.axes(rows)
        distances = [torch.cdist(one.double(), one.double()) for one in (placed, rows)]
        assert torch.allclose(*distances, atol=1e-4)
        spread = placed.var(0)
        assert (spread[:-1] >= spread[1:] - 1e-4).all()
        assert torch.equal(keep.axes(rows), placed)


def test_a_training_image_among_the_test_images_is_a_leak() -> None:
    data = TinyData()
    data.test_set.images[3] = data.train_set.images[11]
    data.test_set.images[40] = data.test_set.images[50]
    about, arrays = keep.reduced(data, features_of(data, "train"), features_of(data, "test"))
    assert about["leaks"] == 1
    assert about["twins"] == 1
    assert arrays["pairs"].tolist() == [[3, 11], [40, 50]]
    assert arrays["pair_splits"].tolist() == [1, 0]


def test_nearly_equal_features_alone_are_no_duplicates(tiny: tuple[Any, Features, Features]) -> None:
    data, train, test = tiny
    same = [Features(torch.ones_like(f.x), f.labels, f.indices) for f in (train, test)]  # collapsed
    about, _ = keep.reduced(data, same[0], same[1])
    assert about["compared"] > 50
    assert about["leaks"] == about["twins"] == 0


def test_items_without_labels_have_neighbours_of_their_own_split() -> None:
    data = TinyData(labelled=False)
    about, arrays = keep.reduced(data, None, features_of(data, "test"))
    assert about["bank"] == "test"
    assert "found" not in arrays
    own = arrays["indices"][arrays["queries"]]
    assert not (arrays["nearest"] == own[:, None]).any()  # an item is not its own neighbour


def test_several_labels_are_no_classes(tiny: tuple[Any, Features, Features]) -> None:
    data, train, test = tiny
    several = [Features(f.x, torch.ones(len(f), 4), f.indices) for f in (train, test)]
    _, arrays = keep.reduced(data, several[0], several[1])
    assert (arrays["labels"] == -1).all()
    assert "found" not in arrays


def test_data_that_draw_nothing_have_no_pictures(tiny: tuple[Any, Features, Features], monkeypatch: Any) -> None:
    data, train, test = tiny
    monkeypatch.setattr(type(data), "show", lambda self, item: None)
    _, arrays = keep.reduced(data, train, test)
    assert "sheet" not in arrays
    assert "features" in arrays


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_items_are_no_error(count: int) -> None:
    data = TinyData(train=count, test=count)
    keep.reduced(data, features_of(data, "train"), features_of(data, "test"))
    keep.reduced(data, None, features_of(data, "test"))


def test_it_draws_no_random_numbers_and_writes_equal_bytes(
    tiny: tuple[Any, Features, Features], tmp_path: Path
) -> None:
    data, train, test = tiny
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Keeper(tmp_path / name, data)(train, test)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert (tmp_path / "one/report.npz").read_bytes() == (tmp_path / "two/report.npz").read_bytes()


def test_at_most_so_many_items_are_kept_spread_over_the_split() -> None:
    many = Features(torch.randn(5000, 3), torch.zeros(5000).long(), torch.arange(5000))
    few = keep.chosen(many)
    assert len(few) == keep.ITEMS
    assert few.indices[0] == 0
    assert few.indices[-1] == 4999
    assert len(few.indices.unique()) == keep.ITEMS


def test_what_fails_is_one_line_and_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        pass

    Keeper(tmp_path, Odd())(None, Features(torch.ones(3, 2), torch.zeros(3).long(), torch.arange(3)))
    assert "the page gets no map of features" in caplog.text
    assert len(caplog.records) == 1
    assert not list(tmp_path.iterdir())


def test_kept_files_read_back_and_damaged_ones_are_empty(tmp_path: Path) -> None:
    kept.write(tmp_path, {"a": 1}, {"x": np.arange(3)})
    kept.add(tmp_path, {"b": [2]}, {"y": np.ones(2)})
    found = kept.read(tmp_path)
    assert found.about == {"a": 1, "b": [2]}
    assert set(found.arrays) == {"x", "y"}
    whole = (tmp_path / "report.npz").read_bytes()
    for damaged in (b"", b"PK", whole[: len(whole) // 2], b"no zip at all"):
        (tmp_path / "report.npz").write_bytes(damaged)
        assert kept.read(tmp_path) == kept.Kept()
    with open(tmp_path / "report.npz", "wb") as file:
        np.savez(file, evil=np.array([print], dtype=object), about=np.array(json.dumps({})))
    assert kept.read(tmp_path) == kept.Kept()  # an object array would be unpickled


def test_thumbnails_stand_in_their_places() -> None:
    pictures = [np.full((48, 48, 3), shade, np.uint8) for shade in (0, 100, 200)] * 20
    data = thumbnails.sheet([*pictures, None], 48)
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data.tobytes())) as opened:
        sheet = np.asarray(opened)
    for place, picture in enumerate(pictures):
        top, left = place // thumbnails.ACROSS * 48, place % thumbnails.ACROSS * 48
        assert abs(sheet[top : top + 48, left : left + 48].astype(int) - picture).max() <= 2


def test_likeness_of_items() -> None:
    x = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert thumbnails.alike(x, 0.8 * x + 0.1) == pytest.approx(1.0)
    assert thumbnails.alike(x, -x) == pytest.approx(-1.0)
    assert thumbnails.alike(x, x[:, :4]) == 0.0
    assert thumbnails.alike("a", "b") == 0.0
    assert thumbnails.alike(torch.ones(3), torch.ones(3)) == 1.0
    assert thumbnails.alike(torch.ones(3), torch.zeros(3)) == 0.0


def test_facts_of_odd_things() -> None:
    assert facts.of_network(None) == {}
    assert facts.of_inputs([torch.zeros(3, 2, 2, dtype=torch.uint8)]) == {}  # not what a network is fed
    assert facts.of_inputs([torch.full((1, 4, 4), 3.0)]) == {"input_mean": 3.0, "input_std": 0.0}
    assert facts.of_data(object())["classes"] == []


def test_near_neighbours_outvote_many_far_ones_as_the_temperature_says() -> None:
    cosines, labels = torch.tensor([[0.9, 0.5, 0.5, 0.5]]), torch.tensor([[2, 1, 1, 1]])
    assert keep.voted(cosines, labels, temperature=0.07).tolist() == [2]
    assert keep.voted(cosines, labels, temperature=10.0).tolist() == [1]
    assert keep.voted(cosines, torch.tensor([[-1, 1, -1, 0]]), temperature=10.0).tolist() == [0]  # of equals the first
    assert keep.voted(cosines, torch.full((1, 4), -1), temperature=0.07).tolist() == [-1]
