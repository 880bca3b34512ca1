"""Every notebook is executed, shrunk, from its own folder, as a reader would; what is stored of it can be shown."""

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LESS = {
    r"data\.size=\d+": "data.size=160",
    r"data\.test_size=\d+": "data.test_size=64",
    r"Shapes\(size=\d+, test_size=\d+\)": "Shapes(size=160, test_size=64)",
    r"\bepochs=\d+": "epochs=1",
    r'"epochs": \d+': '"epochs": 1',
    r"range\(300\)": "range(90)",
    r'"labels_per_class": \d+': '"labels_per_class": 4',
}
CELLS, BYTES = 10, 3_000_000  # of one; of all
# Places of the machine it was run on, colours of a terminal, and lines of a bar that was drawn over itself.
STRANGE = [r"/home/", r"/Users/", r"/root/", r"\b[A-Z]:\\\\", re.escape(tempfile.gettempdir()), r"\x1b", r"\r", "it/s"]
STRANGE += [re.escape(str(Path(__file__).parents[1])), re.escape(str(Path.home())) + r"\b"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: Any) -> int:
    data = [output.get("data", {}) for output in outputs(notebook)]
    return sum("image/png" in part or "<img" in part.get("text/html", "") for part in data)


def text_of(output: Any) -> str:
    data = output.get("data", {})
    page = re.sub(r'src="data:[^"]*"', "", data.get("text/html", ""))
    return "\n".join([output.get("text", ""), data.get("text/plain", ""), page])


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"quickstart", "compare_methods", "own_photos", "audio"}
    assert sum(path.stat().st_size for path in NOTEBOOKS) < BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_can_be_shown(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= CELLS
    assert notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run from the top, once
    assert pictures(notebook) >= 2
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.get("text")
        for pattern in STRANGE:
            assert not re.search(pattern, text_of(output)), pattern


def of_which_one_is_quick(path: Path) -> Any:
    return pytest.param(path, id=path.stem, marks=() if path.stem == "quickstart" else pytest.mark.long)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook's own machinery
@pytest.mark.parametrize("path", [of_which_one_is_quick(path) for path in NOTEBOOKS])
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            for pattern, less in LESS.items():
                cell.source = re.sub(pattern, less, cell.source)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(notebook) >= 2
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_mistake_in_a_cell_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS[0].parents[1]))
    cells = [nbformat.v4.new_code_cell('import ssl_lightning as sl\nsl.pretrain("shapez")')]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = outputs(notebook)
    assert shown.ename == "UserError"
    assert len(shown.traceback) == 1
    assert shown.traceback[0].startswith("UserError: there is no folder or file 'shapez'")
    assert "Did you mean 'shapes'?" in shown.traceback[0]
