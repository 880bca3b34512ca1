"""Layouts people have: no label is lost without a word, what does not fit is named, splits can be named."""

import os
from pathlib import Path

import pytest

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.sources.folder import Folder
from tests.data.pictures import write_classes, write_picture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(root: Path, *folders: str, each: int = 3) -> None:
    for number, name in enumerate(folders):
        for i in range(each):
            write_picture(root / name / f"{i:03}.png", value=100 * number + i)


def loaded(root: Path, **options: object) -> Folder:
    data = Folder(root, **options)  # type: ignore[arg-type]
    data.prepare_data()
    return data


@pytest.mark.parametrize("name", ["train", "Training", "val", "test", "images"])
def test_a_class_may_have_the_name_of_a_split(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "bus", "car", name, each=10)
    data = loaded(tmp_path / "r")
    assert set(data.classes) == {"bus", "car", name}
    assert (len(data.train_set), len(data.test_set)) == (27, 3)
    said = capsys.readouterr().err
    assert "30 images in 3 classes" in said
    assert "27 images in 3 classes to train on, 3 images in 3 classes to evaluate on" in said


def test_all_three_names_may_be_classes(tmp_path: Path) -> None:
    write(tmp_path / "r", "bus", "test", "train", "val", each=4)
    assert loaded(tmp_path / "r").num_classes == 4


def test_splits_stay_splits_beside_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "train/a", "train/b", "test/a", "test/b", "more", "extra/x")
    write_picture(tmp_path / "r/cover.png")
    data = loaded(tmp_path / "r")
    assert (len(data.train_set), len(data.test_set), data.classes) == (6, 6, ["a", "b"])
    assert "not read, because they lie beside the splits: extra/, more/, cover.png" in capsys.readouterr().err


def test_strays_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "train/a", "train/b", "test/a", "test/b")
    for stray in ("train/sample.png", "test/odd.png"):
        write_picture(tmp_path / "r" / stray)
    data = loaded(tmp_path / "r")
    assert data.has_labels
    assert (len(data.train_set), len(data.test_set)) == (6, 6)
    said = capsys.readouterr().err
    assert "left out 1 image outside the class folders: sample.png" in said
    assert "left out 1 image outside the class folders: odd.png" in said
    assert "6 images in 2 classes to train on, 6 images in 2 classes to evaluate on" in said


@pytest.mark.parametrize("extra", ["cover.png", "b/raw/1.png"])
def test_one_odd_image_takes_no_label_away(tmp_path: Path, extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "a", "b", each=10)
    write_picture(tmp_path / "r" / extra)
    data = loaded(tmp_path / "r")
    assert data.has_labels
    assert data.classes == ["a", "b"]
    assert len(data.train_set) + len(data.test_set) == 20 + ("/" in extra)
    assert extra in capsys.readouterr().err


def test_where_labels_are_not_taken_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "deep", "x/1", "x/2", "y/1")
    assert not loaded(tmp_path / "deep").has_labels
    assert "data.labels=true takes the first folder" in capsys.readouterr().err
    write(tmp_path / "flat", "a", "b", each=1)
    for i in range(9):
        write_picture(tmp_path / f"flat/{i}.png")
    assert not loaded(tmp_path / "flat").has_labels
    assert "9 images lie outside the folders a/, b/" in capsys.readouterr().err


def test_labelled_validation_beats_an_unlabelled_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "train/a", "train/b", "val/a", "val/b", "test")
    data = loaded(tmp_path / "r")
    assert data.has_labels
    assert len(data.test_set) == 6
    assert "test/ has no class folders, so val/ is evaluated on" in capsys.readouterr().err
    assert not loaded(tmp_path / "r", test="test").has_labels
    write(tmp_path / "k", "train/a", "train/b", "val/a", "val/b", "test/images")
    assert loaded(tmp_path / "k").has_labels


def test_an_unlabelled_test_alone_leaves_a_held_out_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "train/a", "train/b", each=10)
    write(tmp_path / "r", "test", each=7)
    data = loaded(tmp_path / "r")
    assert data.has_labels
    assert (len(data.train_set), len(data.test_set)) == (18, 2)
    assert "data.test=test uses it without labels" in capsys.readouterr().err
    assert len(loaded(tmp_path / "r", test="test").test_set) == 7


def test_splits_can_be_named(tmp_path: Path) -> None:
    write(tmp_path / "r", "fold1/a", "fold1/b", "fold2/a", "fold2/b", "fold3/a")
    data = loaded(tmp_path / "r", train="fold1", test="fold2")
    assert (len(data.train_set), len(data.test_set), data.classes) == (6, 6, ["a", "b"])
    write(tmp_path / "elsewhere", "a", "b", each=2)
    assert len(loaded(tmp_path / "r", train="fold1", test=str(tmp_path / "elsewhere")).test_set) == 4
    write(tmp_path / "c", "a", "b", "held/a", "held/b")
    data = loaded(tmp_path / "c", test="held")
    assert (len(data.train_set), len(data.test_set), data.classes) == (6, 6, ["a", "b"])
    with pytest.raises(UserError, match=r"data\.train=fold is not a folder .* Did you mean 'fold"):
        loaded(tmp_path / "r", train="fold")
    with pytest.raises(UserError, match="hold the same images"):
        loaded(tmp_path / "r", train="fold1", test="fold1")


def test_an_archive_s_own_folder_around_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "r", "set/set/train/a", "set/set/train/b", "set/set/val/a", "set/set/val/b")
    data = loaded(tmp_path / "r")
    assert (len(data.train_set), len(data.test_set), data.classes) == (6, 6, ["a", "b"])


def test_a_class_linked_twice_is_taken_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "cat", "dog", each=10)
    (tmp_path / "r/kitten").symlink_to("cat")
    (tmp_path / "r/a-cat").symlink_to("cat")  # sorts before the folder itself
    data = loaded(tmp_path / "r")
    assert data.classes == ["cat", "dog"]
    assert "kitten/ is cat/" in capsys.readouterr().err


def test_linked_classes_are_classes_in_each_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "all", "a", "b")
    for part in ("train", "test"):
        (tmp_path / "r" / part).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "r" / part / name).symlink_to(tmp_path / "all" / name)
    data = loaded(tmp_path / "r")
    assert (len(data.train_set), len(data.test_set), data.classes) == (6, 6, ["a", "b"])
    assert "6 images are in both the training and the evaluation data" in capsys.readouterr().err


def test_what_programs_leave_behind_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "a", "b", "__MACOSX/a", "a/@eaDir", ".ipynb_checkpoints")
    for name in ("Thumbs.db", "a/.DS_Store", "a/._000.png", "README", "notes.txt", "desktop.ini"):
        (tmp_path / "r" / name).write_text("x")
    (tmp_path / "r/empty").mkdir()
    os.rename(tmp_path / "r/a/000.png", tmp_path / "r/a/000.PNG")
    data = loaded(tmp_path / "r", test_fraction=0.34)
    assert data.classes == ["a", "b"]
    assert len(data.train_set) + len(data.test_set) == 6
    said = capsys.readouterr().err
    assert "folders without images are not classes: empty" in said
    assert "Skipped" not in said


def test_unknown_formats_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "a", "b")
    for name in ("a/1.heic", "a/2.HEIC", "b/3.dcm"):
        (tmp_path / "r" / name).write_text("x")
    os.symlink("/nonexistent/x.png", tmp_path / "r/a/zz.png")
    loaded(tmp_path / "r", test_fraction=0.34)
    said = capsys.readouterr().err
    assert "Skipped 3 files of formats that are not read (.heic 2, .dcm 1)" in said
    assert "Skipped links and entries that are not regular files" in said


def test_classes_of_one_split_only_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", "train/a", "train/b", "train/c", "test/a", "test/b")
    loaded(tmp_path / "r")
    assert "9 images in 3 classes to train on, 6 images in 2 classes to evaluate on (no image of class c" in (
        capsys.readouterr().err
    )
    write(tmp_path / "r", "test/cc")
    with pytest.raises(UserError, match=r"'cc' that the training images do not have\. Did you mean 'c'"):
        loaded(tmp_path / "r")


def test_links_between_folders_end(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(6)]
    write(tmp_path / "r", *names, each=1)
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / "r" / name / f"to_{other}").symlink_to(tmp_path / "r" / other)
    data = loaded(tmp_path / "r", labels=False)
    assert len(data.train_set) + len(data.test_set) == 6


def test_one_bad_file_never_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "r", each=5)
    (tmp_path / "r/a/000.png").write_text("no image")
    for seed in range(5):
        data = loaded(tmp_path / "r", seed=seed)
        assert len(data.train_set) + len(data.test_set) == 9
    assert "Skipped 1 image file that cannot be decoded" in capsys.readouterr().err
    (tmp_path / "r/a/001.png").write_text("no image")
    with pytest.raises(UserError, match="2 image files that cannot be decoded"):
        loaded(tmp_path / "r")


def test_the_share_of_bad_files_is_of_the_whole_set(tmp_path: Path) -> None:
    write_classes(tmp_path / "r/train", each=150, size=(4, 4))
    write_classes(tmp_path / "r/test", each=5, size=(4, 4))
    for name in ("a/000", "b/001", "b/002"):
        (tmp_path / f"r/test/{name}.png").write_text("no image")  # 3 of 10, and of 310
    assert len(loaded(tmp_path / "r").test_set) == 7
    (tmp_path / "r/test/b/003.png").write_text("no image")
    with pytest.raises(UserError, match=r"4 image files .* more than 1% of 310"):
        loaded(tmp_path / "r")


def test_one_image_of_each_class_is_refused_before_training(tmp_path: Path) -> None:
    write(tmp_path / "r", "a", "b", "c", each=1)
    with pytest.raises(UserError, match="3 images in 3 classes, one of each, so none can be held out"):
        loaded(tmp_path / "r")
    assert len(loaded(tmp_path / "r", labels=False).test_set) == 1
