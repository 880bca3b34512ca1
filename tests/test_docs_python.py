"""Every block of docs/python.md runs, in order, with less to train."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
LESS = {"epochs=50": "epochs=1", "epochs=20": "epochs=1", "data.image_size=96": "data.image_size=32"}


@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for i in range(60):
        file = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (36, 48, 3), dtype=np.uint8)).save(file)
    found: dict[str, Any] = {}
    for block in BLOCKS:
        for text, less in LESS.items():
            block = block.replace(text, less)
        with warnings.catch_warnings():
            if "Trainer(" in block:
                block = block.replace("Trainer(", "Trainer(accelerator='cpu', enable_progress_bar=False, ")
                warnings.simplefilter("ignore")  # Lightning's on a loader without workers
            exec(compile(block, "docs/python.md", "exec"), found)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["byol-folder"]
    run, embedded = found["run"], found["found"]
    assert run.name == "runs/byol-folder"
    inside = {path.name for path in run.path.iterdir() if (path / "results.json").exists()}
    assert inside == {"linear-folder", "finetune-folder", "embed-photos"}
    assert embedded.features.shape == (60, run.backbone.out_dim)
    assert len(set(embedded.paths)) == 60
    assert found["trainer"].global_step == 10
    assert found["features"].shape == (4, found["method"].backbone.out_dim)
    assert found["value"].isfinite()
    assert torch.is_grad_enabled()


def test_all_of_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
