"""Labels from a table: any order of columns, short names, several labels for an image, and what is wrong with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import label_cells, label_file
from ssl_lightning.modalities.image.described import labels_per_image
from ssl_lightning.modalities.image.sources.folder import Folder
from tests.data.pictures import write_picture

FILES = ["a/1.png", "a/2.png", "b/3.png"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read(folder: Path, text: str, column: str | list[str] | None = None) -> label_file.Labels:
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
    assert "paths without an image under /data (1): 9.png" in said
    assert "no row for 1 image under /data, used without a label: b/3.png" in said
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
        ("path,age,kind\n1,31,x\n", None, r"column 'age' holds more than 0 and 1; choose .* data\.label_column="),
        ("path,age,kind\n1,31,x\n", ["age", "age"], "data.label_column names 'age' twice"),
        ("path,age,kind\n1,31,x\n", [], "data.label_column names no column"),
        ("path,age,kind\n1,31,x\n", "kin", r"so there is no data\.label_column=kin. Did you mean 'kind'"),
        ("1,x\n", "kind", "has no header"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, column: str | list[str] | None, message: str) -> None:
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
    with pytest.raises(UserError, match=r"data\.label_column=x names a column of a table"):
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


# ---- tables that somebody else wrote


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("a/../b/3.png", "b/3.png"),
        ("../data/a/1.png", "a/1.png"),
        ("/data/b/../a/2.png", "a/2.png"),
        ("../../etc/3.png", None),  # not the 3.png in here
        ("/data/../data2/a/1.png", None),
        ("..", None),
    ],
)
def test_a_way_back_stays_in_the_root_or_names_nothing(tmp_path: Path, cell: str, file: str | None) -> None:
    other = next(name for name in FILES if name != file)
    found = read(tmp_path, f"path,label\n{cell},x\n{other},y\n")
    assert found.labels.tolist() == [
        0 if name == file else -1 if name != other else len(found.classes) - 1 for name in FILES
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1\0,x\n", "line 2 has NUL bytes, so it is not text; save the table as UTF-8"),
        ("path,label\n1,x\n".encode("utf-16-le").decode("latin1"), "line 1 has NUL bytes"),
        ("path,label\n1,x\n2," + "y" * 2**21, "line 3 is longer than 1,048,576 characters"),
        ("path,label\n1," + "y" * 200_000, "is not a table .*field larger than field limit"),
        ('path,label\n1,"x\n' + "2,y\n" * 100_000, "is not a table .*field larger than field limit"),
        ("path,label\n" + "x" * 5000 + ",y\n", r"none of its 1 paths is an image under /data \(x{117}\.\.\. first\)"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_many_cells_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_file, "MOST_CELLS", 6)
    assert read(tmp_path, "path,label\n1,x\n2,y\n").classes == ["x", "y"]
    with pytest.raises(UserError, match="has more than 6 cells; keep the columns that are needed"):
        read(tmp_path, "path,label\n1,x\n2,y\n3,z\n")


@pytest.mark.parametrize("text", ["1,a|b|c\n2,d|e\n", "path,a,b,c,d,e\n1,0,1,0,1,0\n"])
def test_a_table_of_labels_by_images_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(label_cells, "MOST_TARGETS", 15)
    assert len(read(tmp_path, text).names) == 5
    monkeypatch.setattr(label_cells, "MOST_TARGETS", 14)
    with pytest.raises(UserError, match=r"more than 4 different labels for 3 images, several per image; keep"):
        read(tmp_path, text)


def test_a_table_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    """A gigabyte in one line, and 20,000 images with 20 labels of their own each, in little memory."""
    (tmp_path / "line.csv").touch()
    os.truncate(tmp_path / "line.csv", 2**30)  # zeros
    with open(tmp_path / "line.csv", "r+b") as file:
        file.write(b"path,label\n1,x\n2," + b"y" * 2**21)
    rows = (f"{i}.png,{'|'.join(f'{i}-{k}' for k in range(20))}\n" for i in range(20_000))
    (tmp_path / "many.csv").write_text("".join(rows))
    program = """
import resource, sys
from ssl_lightning.data import label_file
from ssl_lightning.core.errors import UserError
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20),) * 2)
for name in ("line", "many"):
    try:
        label_file.read(f"{sys.argv[1]}/{name}.csv", "/data", [f"{i}.png" for i in range(20_000)])
    except UserError as error:
        print(error)
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=True)
    line, many = done.stdout.splitlines()
    assert "line.csv: line 3 is longer than" in line
    assert "many.csv has more than 53,687 different labels for 20,000 images" in many


def test_what_a_table_names_reaches_the_terminal_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, "path,label\n1,x\n\x1b[2Jgone,y\n\u200b,z\n")
    said = capsys.readouterr().err
    assert r"\x1b[2Jgone, \u200b" in said
    assert all(line.isprintable() for line in said.splitlines())
