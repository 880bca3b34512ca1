"""Labels from a table: any order of columns, short names, several labels for an image, and what is wrong with it."""

from pathlib import Path

import pytest
import torch

from ssl_lightning.data import label_file
from ssl_lightning.data.described import labels_per_image
from ssl_lightning.data.sources.folder import Folder
from ssl_lightning.errors import UserError
from tests.data.pictures import write_picture

FILES = ["a/1.png", "a/2.png", "b/3.png"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read(folder: Path, text: str, column: str | None = None) -> label_file.Labels:
    (folder / "t.csv").write_text(text, "utf-8")
    return label_file.read(folder / "t.csv", "/data", FILES, column)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/1.png,x\na/2.png,y\nb/3.png,x\n",
        "a/1.png,x\na/2.png,y\nb/3.png,x\n",
        "1.png;x\n2.png;y\n3.png;x\n",
        "\ufefflabel\timage_id\nx\t1\ny\t2\nx\t3\n",
        "file,label\n/data/a/1.png,x\n./a/2.png,y\n\nb\\3.png,x\n",
        "1,x\n2,y\n3,x\n",
    ],
)
def test_forms_of_a_table(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.classes == ["x", "y"]
    assert found.known.all()


def test_a_table_named_as_from_the_root_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a/1.png,x\n", "utf-8")
    with pytest.raises(UserError, match=r"does not exist; did you mean data\.labels=.*t\.csv\?"):
        label_file.read("t.csv", str(tmp_path), FILES, None)
    with pytest.raises(UserError, match=r"give data\.labels=FILE\.csv"):
        label_file.read("other.csv", str(tmp_path), FILES, None)


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "1,10\n2,9\n3,10\n").classes == ["9", "10"]


def test_several_labels(tmp_path: Path) -> None:
    found = read(tmp_path, "path,old,wet\n1,1,0\n2,1,1\n")
    assert found.names == ("old", "wet")
    assert found.targets is not None
    assert found.targets.tolist() == [[1, 0], [1, 1], [-1, -1]]
    assert found.known.tolist() == [True, True, False]
    piped = read(tmp_path, "path,label\n1,wet|old\n2,old\n3,\n")
    assert piped.names == ("old", "wet")
    assert piped.targets is not None
    assert piped.targets.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert read(tmp_path, "path,old,wet\n1,1,0\n2,1,1\n3,0,1\n", "wet").labels.tolist() == [0, 1, 1]


def test_what_is_missing_or_too_much_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(tmp_path, "path,label\n1,x\n1,x\n9.png,y\n2,\n")
    assert found.labels.tolist() == [0, -1, -1]
    said = capsys.readouterr().err
    assert "paths that are no image under /data (1): 9.png" in said
    assert "no row for 1 image under /data, without a label then: b/3.png" in said
    assert "rows that repeat another (1): a/1.png" in said


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", None, "is empty"),
        ("path\n1\n", None, "it has one column"),
        ("path,label\n1,x,y\n", None, "row 2 has 3 cells, the first has 2"),
        ("path,label\n", None, "a header and no rows"),
        ("7.png,x\n8.png,y\n", None, "none of its 2 paths is an image"),
        ("path,label\n7,x\n8,y\n", None, "none of its 2 paths is an image"),
        ("path,label\n1,x\n1,y\n", None, "gives a/1.png two different labels"),
        ("path,age,kind\n1,31,x\n", None, r"column 'age' is not 0 and 1 alone; choose .* data\.label_column="),
        ("path,age,kind\n1,31,x\n", "kin", r"data\.label_column=kin is none. Did you mean 'kind'"),
        ("1,x\n", "kind", "has no header"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, column: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text, column)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist"):
        label_file.read(tmp_path / "none.csv", "/data", FILES)


def test_a_folder_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(24):
        write_picture(tmp_path / f"r/{i}.png", value=i)
    (tmp_path / "t.csv").write_text("".join(f"{i},{'odd' if i % 2 else 'even'}\n" for i in range(20)))
    data = Folder(tmp_path / "r", labels=str(tmp_path / "t.csv"))
    assert data.classes == ["even", "odd"]
    assert data.has_labels
    assert (len(data.train_set), len(data.probe_set), len(data.test_set)) == (22, 18, 2)
    assert torch.bincount(data.test_set.labels).tolist() == [1, 1]
    for images in (data.train_set, data.probe_set, data.test_set):
        for path, label in zip(images.paths or [], images.labels.tolist(), strict=True):
            number = int(Path(path).stem)
            assert label == (number % 2 if number < 20 else -1)
    said = capsys.readouterr().err
    assert "22 images in 2 classes (4 of them without a label) to train on" in said
    with pytest.raises(UserError, match=r"data\.label_column=x is of a table"):
        Folder(tmp_path / "r", label_column="x")


def test_a_table_for_the_training_images_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        write_picture(tmp_path / f"r/train/{i}.png", value=i)
        write_picture(tmp_path / f"r/test/t{i}.png", value=50 + i)
    (tmp_path / "t.csv").write_text("id,breed\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    data = Folder(tmp_path / "r", labels=str(tmp_path / "t.csv"))
    assert (len(data.train_set), len(data.test_set)) == (18, 2)
    assert "has no label for" in capsys.readouterr().err


def test_several_labels_train_and_are_kept(tmp_path: Path) -> None:
    for i in range(20):
        write_picture(tmp_path / f"r/{i}.png", value=i)
    (tmp_path / "t.csv").write_text("path,a,b,c\n" + "".join(f"{i},{i % 2},1,0\n" for i in range(20)))
    data = Folder(tmp_path / "r", labels=str(tmp_path / "t.csv"))
    assert not data.has_labels
    assert labels_per_image(data) == 3
    targets = data.test_set.targets
    assert targets is not None
    assert [row[0] for row in targets.tolist()] == [int(Path(p).stem) % 2 for p in data.test_set.paths or []]
    one = Folder(tmp_path / "r", labels=str(tmp_path / "t.csv"), label_column="a")
    assert one.classes == ["0", "1"]


@pytest.mark.parametrize("odd", ["--5", "-", "9" * 5000])
def test_labels_that_look_like_numbers(odd: str) -> None:
    assert label_file.in_order(["10", odd, "9"]) == sorted(["10", odd, "9"])
    assert label_file.in_order(["10", "-1", "9"]) == ["-1", "9", "10"]
