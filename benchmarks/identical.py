"""Does a change leave training as it was, to the bit? Twenty steps of methods of every family, before and after it.

    git switch main    && python -m benchmarks.identical > before.json
    git switch changed && python -m benchmarks.identical --compare before.json

Each case is the command itself, `python -m ssl_lightning method=... data=...`, on `shapes` and on a folder of small
pictures that is drawn and written here: two epochs of ten steps on the CPU. What is kept of it are the losses of its
steps as hexadecimal floats and the SHA-256 of the names and bytes of its last weights. Both depend on the processor and
the versions of torch and Pillow: compare with what the same machine gave.

    --all            every method there is, on shapes alone
    --only moco,mae  these methods, on shapes and on the folder
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from lightning import Callback
from PIL import Image

METHODS = ("simclr", "moco", "byol", "swav", "dino", "mae", "vicreg", "cpc")
BATCH, STEPS, EPOCHS, SIZE = 16, 10, 2, 32
CONF = Path(__file__).parents[1] / "conf" / "method"
CONVNET = ("backbone=convnet_small", "backbone.width=8")
VIT = ("backbone=vit_tiny", "backbone.patch_size=8", "backbone.dim=48", "backbone.depth=2", "backbone.heads=3")
# What makes a short run touch more of a method: a queue that is full and used, prototypes that few images can fill.
ALSO = {
    "moco": ("method.queue_size=64",),
    "moco_v1": ("method.queue_size=64",),
    "nnclr": ("method.queue_size=64",),
    "densecl": ("method.queue_size=64",),
    "ressl": ("method.queue_size=64",),
    "swav": ("method.prototypes=24", "method.queue_size=32", "method.queue_epoch=1", "views=multicrop"),
    "wmse": ("method.loss.size=16", "method.projector.out_dim=8"),
    "deepcluster_v2": ("method.prototypes=24",),
    "dino": ("views=dino", "views.local.count=2"),
}
DATA = {
    "shapes": ("data=shapes", f"data.size={BATCH * STEPS}", "data.test_size=32"),
    "folder": ("data=folder", "experiment=cpu", f"data.image_size={SIZE}", "data.num_workers=0"),
}
COMMON = (
    f"data.batch_size={BATCH}",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "stage.judge=false",
    "seed=3",
    "trusted_packages=[benchmarks]",
    "+callbacks.losses={_target_: benchmarks.identical.Losses}",
)
Found = dict[str, dict[str, Any]]


class Losses(Callback):
    """Keeps the loss of each step, exactly."""

    kept: list[str]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        type(self).kept.append(float(outputs["loss"]).hex())


def write_folder(root: Path) -> Path:
    """Pictures of four classes, jpeg and png, grey and coloured, of several sizes; the same ones every time."""
    draw = np.random.default_rng(0)
    for split, count in (("train", BATCH * STEPS), ("test", 32)):
        for i in range(count):
            height, width = draw.integers(36, 64, 2)
            coarse = draw.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            coarse[i % 4] = (40, 200, 120)  # a band whose place is the class
            picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
            file = root / split / f"class_{i % 4}" / f"{i:03d}.{'png' if i % 3 else 'jpg'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (picture.convert("L") if i % 7 == 0 else picture).save(file)
    return root


def is_token_method(method: str) -> bool:
    return "override /backbone: vit" in (CONF / f"{method}.yaml").read_text()


def words_of(method: str, data: str, folder: Path) -> list[str]:
    """The command line of a case."""
    backbone = VIT if is_token_method(method) or method == "dino" else CONVNET
    root = [f"data.root={folder / 'pictures'}"] if data == "folder" else []
    place = [f"runs_dir={folder / 'runs'}", f"name={method}-{data}"]
    return [*DATA[data], *root, f"method={method}", *backbone, *COMMON, *ALSO.get(method, ()), *place]


def trained(method: str, data: str, folder: Path) -> dict[str, Any]:
    """The losses and weights of one case."""
    from benchmarks.identical import Losses as Recorded  # this file, as the command imports it
    from ssl_lightning.__main__ import main as command

    Recorded.kept = []
    with contextlib.redirect_stdout(sys.stderr):
        code = command(words_of(method, data, folder))
    if code:
        sys.exit(f"error: {method} on {data} ended with exit status {code}")
    if len(Recorded.kept) != STEPS * EPOCHS:
        sys.exit(f"error: {method} on {data} made {len(Recorded.kept)} steps, not {STEPS * EPOCHS}")
    saved = folder / "runs" / f"{method}-{data}" / "checkpoints" / "last.ckpt"
    state = torch.load(saved, map_location="cpu", weights_only=True)["state_dict"]
    return {"losses": Recorded.kept, "weights": digest(state)}


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and bytes, in the order of the state."""
    whole = hashlib.sha256()
    for name, value in state.items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def record(cases: list[tuple[str, str]]) -> Found:
    found: Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if any(data == "folder" for _, data in cases):
            write_folder(folder / "pictures")
        for method, data in cases:
            found[f"{method} {data}"] = trained(method, data, folder)
    return found


def difference(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    """In words: nothing, or the first step whose loss is another."""
    if before is None:
        return "not in the file"
    for step, (old, new) in enumerate(zip(before["losses"], after["losses"])):
        if old != new:
            return f"step {step}: {float.fromhex(old):.9g} -> {float.fromhex(new):.9g}"
    return "identical" if before["weights"] == after["weights"] else "the weights alone"


def compare(before: Found, after: Found) -> bool:
    """Prints a row for each case; True where all are identical."""
    rows = {name: difference(before.get(name), found) for name, found in after.items()}
    width = max(map(len, rows))
    for name, words in rows.items():
        print(f"{name:{width}}  {words}")
    same = sum(words == "identical" for words in rows.values())
    print(f"{same} of {len(rows)} identical")
    return same == len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identical", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--compare", type=Path, metavar="FILE", help="what this printed before the change")
    parser.add_argument("--only", default="", metavar="METHODS", help="names with commas between them")
    parser.add_argument("--all", action="store_true", help="every method, on shapes alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    methods = tuple(filter(None, asked.only.split(","))) or METHODS
    cases = [(method, data) for method in methods for data in DATA]
    if asked.all:
        cases = [(path.stem, "shapes") for path in sorted(CONF.glob("*.yaml"))]
    before = json.loads(asked.compare.read_text()) if asked.compare else None
    found = record(cases)
    if before is not None:
        return 0 if compare(before, found) else 1
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
