"""`data.group=` for images: one patient, one split, whichever way groups are said."""

from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.sources.folder import Folder
from tests.data.pictures import write_picture

PATIENTS = 8


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Eight patients with three images each, in two classes, and a table that says so."""
    rows = ["path,label,patient"]
    for patient in range(PATIENTS):
        for take in range(3):
            name = f"{'ab'[patient % 2]}/p{patient}_{take}.png"
            write_picture(tmp_path / "r" / name, (8, 8), patient)
            rows.append(f"{name},{'ab'[patient % 2]},p{patient}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path


def patients(images: Any) -> set[str]:
    return {Path(path).name.partition("_")[0] for path in images.paths}


@pytest.mark.parametrize("by", ["pattern", "table"])
def test_no_patient_is_on_both_sides(scans: Path, by: str) -> None:
    said = {"group": "{group}_*"} if by == "pattern" else {"group": "patient", "labels": str(scans / "t.csv")}
    for seed in range(3):
        data = Folder(scans / "r", test_fraction=0.25, seed=seed, **said)  # type: ignore[arg-type]
        train, test = patients(data.train_set), patients(data.test_set)
        assert not train & test
        assert len(train | test) == PATIENTS
        assert len(data.test_set) == 6
        assert data.test_set.labels.unique().tolist() == [0, 1]
    alone = Folder(scans / "r", test_fraction=0.25)
    assert patients(alone.train_set) & patients(alone.test_set)


def test_patients_may_be_named(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Folder(scans / "r", group="{group}_*", held_out=["p3", "p4"])
    assert patients(data.test_set) == {"p3", "p4"}
    assert "whole groups held out for evaluation: p3, p4." in capsys.readouterr().err
    assert patients(Folder(scans / "r", group="{group}_*", held_out="p5").test_set) == {"p5"}
    with pytest.raises(UserError, match=r"held_out names 'p33', which is not a group. Did you mean"):
        _ = Folder(scans / "r", group="{group}_*", held_out=["p33"]).test_set


def test_given_folders_are_checked(tmp_path: Path) -> None:
    for part, patient in (("train", 0), ("train", 1), ("test", 1)):
        write_picture(tmp_path / f"r/{part}/a/p{patient}_{part}.png", (8, 8))
    with pytest.raises(UserError, match=r"groups are in both the training and the evaluation data \(p1\)"):
        _ = Folder(tmp_path / "r", group="{group}_*").test_set


def test_a_folder_may_be_the_group(tmp_path: Path) -> None:
    for patient in range(4):
        for take in range(2):
            write_picture(tmp_path / f"r/p{patient}/{take}.png", (8, 8), patient)
    data = Folder(tmp_path / "r", labels=False, group="folder", test_fraction=0.3)
    sides = [{Path(path).parent.name for path in part.paths} for part in (data.train_set, data.test_set)]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_what_says_no_group_is_refused(scans: Path) -> None:
    with pytest.raises(UserError, match=r"names a column of a table, but no table is set"):
        _ = Folder(scans / "r", group="patient").test_set
    with pytest.raises(UserError, match=r"set data.group to say what they are"):
        Folder(scans / "r", held_out=["p1"])
    with pytest.raises(UserError, match=r"leave data.probe_root out"):
        Folder(scans / "r", group="folder", probe_root=scans / "r")
