"""`data=folder`: every layout, every kind of trouble, and training batches out of it."""

from pathlib import Path

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.batch import Batch
from ssl_lightning.modalities.image.images import ArrayImages, FileImages
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.modalities.image.views import View, Views
from tests.data.pictures import write_classes, write_mixed, write_picture

VIEWS = Views(View(size=8, count=2))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def batches(data: Folder) -> list[Batch]:
    return [data.on_after_batch_transfer(raw) for raw in data.train_dataloader()]


def test_train_and_test_with_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "r/train", "cab", each=3)
    write_classes(tmp_path / "r/test", "ab", each=2)
    data = Folder(tmp_path / "r")
    assert data.classes == ["a", "b", "c"]
    assert data.has_labels
    assert data.train_set.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test_set.labels.tolist() == [0, 0, 1, 1]
    assert data.probe_set is data.train_set
    assert isinstance(data.train_set, ArrayImages)  # small and of one size


def test_test_is_preferred_to_validation_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, each in (("Train", 3), ("validation", 1), ("test", 2)):
        write_classes(tmp_path / "r" / part, each=each)
    assert len(Folder(tmp_path / "r").test_set) == 4
    assert "test/ is evaluated on; validation/ is not used" in capsys.readouterr().err


def test_validation_serves_where_there_is_no_test(tmp_path: Path) -> None:
    write_classes(tmp_path / "r/train", each=3)
    write_classes(tmp_path / "r/val", each=1)
    assert len(Folder(tmp_path / "r").test_set) == 2


def test_class_folders_alone_are_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "r", "ab", each=20)
    data = Folder(tmp_path / "r", seed=3)
    assert torch.bincount(data.train_set.labels).tolist() == [18, 18]
    assert torch.bincount(data.test_set.labels).tolist() == [2, 2]
    assert not set(data.train_set.paths or []) & set(data.test_set.paths or [])
    assert "40 images in 2 classes and no test folder; 4 of them (seeded) are held out" in capsys.readouterr().err
    assert data.test_set.paths == Folder(tmp_path / "r", seed=3).test_set.paths


@pytest.mark.parametrize("nested", [False, True])
def test_images_without_labels_still_train(tmp_path: Path, nested: bool) -> None:
    for i in range(20):
        folder = f"2024/{i % 3}/" if nested else ""
        write_picture(tmp_path / f"r/{folder}{i:02}.png", value=i)
    data = Folder(tmp_path / "r", views=VIEWS, batch_size=6, image_size=8)
    assert not data.has_labels
    assert data.classes == []
    assert (len(data.train_set), len(data.test_set)) == (18, 2)
    first, *_ = batches(data)
    assert first.labels.tolist() == [-1] * 6
    assert [v.shape for v in first.views] == [(6, 3, 8, 8)] * 2
    assert data.labelled_indices().tolist() == []
    assert len(list(data.eval_loader("test"))) == 1


def test_labels_can_be_hidden_or_demanded(tmp_path: Path) -> None:
    write_classes(tmp_path / "r/train", each=3)
    write_classes(tmp_path / "r/test", each=2)
    assert not Folder(tmp_path / "r", labels=False).has_labels
    write_picture(tmp_path / "deep/x/1/1.png")
    write_picture(tmp_path / "deep/x/2/1.png")
    write_picture(tmp_path / "deep/y/1/1.png")
    assert Folder(tmp_path / "deep").classes == []
    assert Folder(tmp_path / "deep", labels=True).classes == ["x", "y"]
    write_picture(tmp_path / "deep/flat.png")
    with pytest.raises(UserError, match=r"flat\.png is not in a class folder"):
        _ = Folder(tmp_path / "deep", labels=True).classes


def test_labelled_folders_for_the_probes(tmp_path: Path) -> None:
    for i in range(20):
        write_picture(tmp_path / f"wild/{i:02}.png", value=i)
    write_classes(tmp_path / "probe/train", each=3)
    write_classes(tmp_path / "probe/test", each=2)
    data = Folder(tmp_path / "wild", probe_root=tmp_path / "probe", label_fraction=0.34, image_size=8)
    assert len(data.train_set) == 20  # nothing is held out: the test images come from elsewhere
    assert not data.train_set.labelled
    assert data.has_labels
    assert data.num_classes == 2
    assert len(data.labelled_indices()) == 2
    assert torch.cat([b.labels for b in data.eval_loader("train")]).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UserError, match="probes need labels"):
        _ = Folder(tmp_path / "probe", probe_root=tmp_path / "wild").test_set


def test_a_class_only_the_test_folder_has_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "r/train", each=2)
    write_picture(tmp_path / "r/test/zebra/1.png")
    with pytest.raises(UserError, match="class folder 'zebra' that the training images do not have"):
        _ = Folder(tmp_path / "r").test_set


def test_trouble_with_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        Folder()
    with pytest.raises(UserError, match="nowhere does not exist"):
        _ = Folder(tmp_path / "nowhere").train_set
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images under"):
        _ = Folder(tmp_path / "empty").train_set
    write_classes(tmp_path / "r/train", each=3)
    with pytest.raises(UserError, match=r"a batch of 64 does not fit 4 training images; set data\.batch_size"):
        Folder(tmp_path / "r", views=VIEWS, batch_size=64).train_dataloader()


@pytest.mark.parametrize("engine", ["device", "worker"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_any_size_make_batches(tmp_path: Path, engine: str, workers: int) -> None:
    write_mixed(tmp_path / "r/train")
    write_mixed(tmp_path / "r/test", each=3)
    data = Folder(
        tmp_path / "r",
        views=VIEWS,
        batch_size=6,
        image_size=8,
        engine=engine,  # type: ignore[arg-type]
        num_workers=workers,
    )
    assert isinstance(data.train_set, FileImages)
    seen = batches(data)
    assert len(seen) == 3
    for batch in seen:
        assert [v.shape for v in batch.views] == [(6, 3, 8, 8)] * 2
        assert all(v.dtype == torch.float32 for v in batch.views)
        assert torch.equal(batch.labels, data.train_set.labels[batch.indices])
    rows = torch.cat([b.indices for b in data.eval_loader("test")])
    assert rows.tolist() == list(range(6))
    pixels = data.raw_pixels("test", torch.tensor([4, 1]))
    wanted = data.eval_view.crop(data.test_set.image(4))
    assert torch.equal(pixels[0], wanted.flatten().float() / 255)
    data.teardown("fit")


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_replaced_counted_and_reported_once(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mixed(tmp_path / "r/train", each=110)
    write_mixed(tmp_path / "r/test", each=1)
    data = Folder(tmp_path / "r", views=VIEWS, batch_size=20, image_size=8, num_workers=workers)
    train = data.train_set
    assert isinstance(train, FileImages)
    Path(train.paths[30]).write_text("no image")
    Path(train.paths[219]).write_bytes(Path(train.paths[219]).read_bytes()[:60])
    loader = data.train_dataloader()
    capsys.readouterr()
    rows = torch.cat([raw.indices for raw in loader])
    assert len(rows) == 220
    assert torch.bincount(rows, minlength=220)[[29, 30, 31, 219, 0]].tolist() == [1, 0, 2, 0, 2]
    assert train.broken.rows == {30, 219}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Skipped 2 image files that cannot be decoded" in said
    assert train.paths[30] in said
    assert len(list(loader)) == 11
    assert capsys.readouterr().err == ""
    Path(train.paths[0]).write_text("no image")
    with pytest.raises(UserError, match=r"^3 image files .* more than 1% of 222.*again$"):
        list(loader)
    for path in train.paths:
        Path(path).write_text("no image")
    with pytest.raises(UserError, match=r"^\d+ image files .* more than 1% of 222.*again$"):
        list(loader)
    data.teardown("fit")
