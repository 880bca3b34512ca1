"""The Python entry: what the command line does, for the user's own code. Nothing below imports this."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from ssl_lightning.cli import call, session
from ssl_lightning.runs import opened, places
from ssl_lightning.runs.checkpoint import Pretrained, restored
from ssl_lightning.runs.opened import Run

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Embedded", "Run", "embed", "evaluate", "finetune", "load_backbone", "load_run", "pretrain"]

Ref = str | Path | Run
Resume = Literal["auto", "must", "never"]


def pretrain(
    data: str | Path | None = None,
    *,
    method: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    backbone: str | None = None,
    seed: int | None = None,
    ckpt: Ref | None = None,
    name: str | None = None,
    runs_dir: str | Path | None = None,
    logger: str | Sequence[str] | None = None,
    resume: Resume | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    trusted: Iterable[str] = (),
    progress: bool = True,
) -> Run:
    """Pretrain a backbone without labels, and evaluate it; the same as a command line with stage=pretrain.

    What is None has the command line's default. The same call again goes on with an interrupted run, and returns a
    finished one at once.

    Args:
        data: a folder of images or of recordings, an .npz or .npy file of images, or the name of a data set
            ("cifar10", "shapes"). None: the built-in demo data, "shapes".
        method: such as "simclr", "dino" or "mae".
        epochs: trainer.max_epochs.
        batch_size: items in a batch, on each device.
        backbone: such as "resnet18" or "vit_tiny".
        seed: of weights, views and order.
        ckpt: weights to begin with: a run, a weights file, "timm:<name>".
        name: of the run's folder; None: <method>-<data>.
        runs_dir: the folder of all runs; None: "runs" in the current folder.
        logger: "csv", "tensorboard", "wandb", or several.
        resume: "auto", "must" (go on or fail), "never" (begin again; the old folder is kept beside it).
        overrides: further words of the command line, as they are typed there: ["optimizer.base_lr=0.1"].
        config_dir: a folder with yamls of your own.
        trusted: your own packages whose classes a config may name.
        progress: print where the run lies, and a line for each epoch. Warnings are told in any case.

    Returns:
        The run.

    Raises:
        UserError: a wrong name or value, data that cannot be used, another run in this folder; one line.
        ModuleNotFoundError: a package of an extra is missing; the line names it.
        KeyboardInterrupt: stopped by a signal, after the state was saved.

    Example:
        >>> run = pretrain("shapes", method="byol", epochs=1, overrides=["data.size=512"])  # doctest: +SKIP
        >>> run.results["knn_top1"]  # doctest: +SKIP
    """
    values = {
        "name": name,
        "runs_dir": runs_dir,
        "seed": seed,
        "ckpt": _ref(ckpt),
        "resume": resume,
        "method": method,
        "backbone": backbone,
        "logger": logger,
        **call.data_words(data, config_dir),
        "data.batch_size": batch_size,
        "trainer.max_epochs": epochs,
    }
    return _run(values, overrides, config_dir, trusted, progress)


def evaluate(
    run: Ref,
    stage: str = "knn",
    data: str | Path | None = None,
    *,
    seed: int | None = None,
    name: str | None = None,
    runs_dir: str | Path | None = None,
    resume: Resume | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    trusted: Iterable[str] = (),
    progress: bool = True,
) -> Run:
    """Evaluate frozen features beside random weights and a naive baseline; stage=knn or stage=linear on a `ckpt=`.

    Args:
        run: a run, its folder, a weights file, or "timm:<name>".
        stage: "knn", "linear", or another stage that works on a `ckpt=`.
        data: labelled data, as in `pretrain`; None: those of the run.
        seed: of the evaluation.
        name: of the evaluation's folder; None: <run>/<stage>-<data>.
        runs_dir: the folder that `name` lies in.
        resume, overrides, config_dir, trusted, progress: as in `pretrain`.

    Returns:
        The evaluation, a run of its own: `.results` has the numbers.

    Raises:
        UserError, ModuleNotFoundError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> evaluate("runs/simclr-shapes", "linear").results["linear_top1"]  # doctest: +SKIP
    """
    values = _on(run, stage, data, config_dir)
    values |= {"seed": seed, "resume": resume} | _place(name, runs_dir)
    return _run(values, overrides, config_dir, _trusted(run, trusted), progress)


def finetune(
    run: Ref,
    data: str | Path | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    labels_per_class: int | None = None,
    label_fraction: float | None = None,
    task: str | None = None,
    seed: int | None = None,
    name: str | None = None,
    runs_dir: str | Path | None = None,
    resume: Resume | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    trusted: Iterable[str] = (),
    progress: bool = True,
) -> Run:
    """Train the whole network on labels, beside the same network from scratch; stage=finetune on a `ckpt=`.

    Args:
        run: a run, its folder, a weights file, or "timm:<name>".
        data: labelled data, as in `pretrain`; None: those of the run.
        epochs: of each of the two trainings.
        batch_size: items in a batch of it, on each device.
        labels_per_class: how many labels are used of each class; None: all.
        label_fraction: the same as a share in (0, 1].
        task: what labels mean, such as "multilabel" or "regress"; None: classes.
        seed: of both trainings.
        name: of its folder; None: <run>/finetune-<data>.
        runs_dir: the folder that `name` lies in.
        resume, overrides, config_dir, trusted, progress: as in `pretrain`.

    Returns:
        The fine-tuning, a run of its own.

    Raises:
        UserError, ModuleNotFoundError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> finetune("runs/simclr-shapes", labels_per_class=20).results["finetune_top1"]  # doctest: +SKIP
    """
    values = _on(run, "finetune", data, config_dir)
    values |= {"seed": seed, "resume": resume, "task": task} | _place(name, runs_dir)
    values |= {"stage.epochs": epochs, "stage.batch_size": batch_size}
    values |= {"data.labels_per_class": labels_per_class, "data.label_fraction": label_fraction}
    return _run(values, overrides, config_dir, _trusted(run, trusted), progress)


@dataclass(frozen=True, eq=False)
class Embedded:
    """The features of a data set, training items first.

    Attributes:
        features: float32 (N, D).
        labels: int64 (N,), -1 where there is none.
        classes: names of the labels (K,).
        split: (N,) "train" or "test" for each item.
        paths: (N,) of the files, relative to the data's root; None where items are no files.
        targets: (N, L) where each item has several labels, or numbers; None elsewhere.
        files: the features_<split>.npz that these were read from.
        run: the run of the embedding.
    """

    features: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]
    split: np.ndarray[Any, Any]
    paths: np.ndarray[Any, Any] | None
    targets: np.ndarray[Any, Any] | None
    files: tuple[Path, ...]
    run: Run

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        n, d = self.features.shape
        files = ", ".join(str(Run(file).name) for file in self.files)
        return f"Embedded: features ({n}, {d}) float32, {len(self.classes)} classes, in {files}"


def embed(
    run: Ref,
    data: str | Path | None = None,
    *,
    batch_size: int | None = None,
    name: str | None = None,
    runs_dir: str | Path | None = None,
    resume: Resume | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    trusted: Iterable[str] = (),
    progress: bool = True,
) -> Embedded:
    """Features of every item of a data set, in memory and in files; stage=embed on a `ckpt=`.

    An embedding that is there already is returned as it is: after a change of the files give resume="never".

    Args:
        run: a run, its folder, a weights file, or "timm:<name>".
        data: what to embed, with or without labels, as in `pretrain`; None: the data of the run.
        batch_size: items at a time.
        name: of its folder; None: <run>/embed-<data>, for a path <run>/embed-<the path's last part>.
        runs_dir: the folder that `name` lies in.
        resume, overrides, config_dir, trusted, progress: as in `pretrain`.

    Returns:
        The features with labels and paths.

    Raises:
        UserError, ModuleNotFoundError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> found = embed("runs/byol-folder", "holidays")  # doctest: +SKIP
        >>> found.features.shape, found.paths[0]  # doctest: +SKIP
    """
    values = _on(run, "embed", data, config_dir)
    place = _place(name, runs_dir)
    if "data.root" in values and name is None and runs_dir is None:
        place = _beside(run, values["data.root"])
    values |= {"resume": resume, "data.batch_size": batch_size} | place
    return _embedded(_run(values, overrides, config_dir, _trusted(run, trusted), progress))


def load_run(path: str | Path | Run, trusted: Iterable[str] = ()) -> Run:
    """The run in a folder, finished or not.

    Args:
        path: the run's folder.
        trusted: your own packages, where the backbone's class lives in one.

    Returns:
        The run, with `.results`, `.metrics`, `.config`, `.backbone`.

    Raises:
        UserError: there is no run in this folder; the line names the nearest.

    Example:
        >>> load_run("runs/simclr-shapes").results["verdict"]  # doctest: +SKIP
    """
    where = path.path if isinstance(path, Run) else path
    return opened.opened(where, trusted=_packages(trusted), load=load_backbone)


def load_backbone(ref: str | Path | Pretrained, trusted: Iterable[str] = ()) -> nn.Module:
    """The backbone of a run, `load_backbone("runs/moco-cifar10")`: a batch of items -> (B, .out_dim), in eval mode.

    Args:
        ref: what says how its backbone is built: a run folder, a checkpoint in one, an exported safetensors file,
            `timm:<name>`, or what `resolve_ckpt` made of one of these.
        trusted: your own packages, where the backbone's class lives in one.

    Returns:
        A plain nn.Module. Of images it takes (B, C, H, W), scaled as its card says.

    Raises:
        UserError: there is nothing to read, it is damaged, or it is a bare state_dict: build that backbone yourself
            and use `load_weights`.
    """
    return restored(ref, trusted)


# ---- from arguments to a run ---------------------------------------------------------------------------------------


def _run(
    values: dict[str, Any],
    overrides: Sequence[str],
    config_dir: str | Path | None,
    trusted: Iterable[str],
    progress: bool,
) -> Run:
    packages = _packages(trusted)
    words = call.words_of({**values, "trusted_packages": packages or None}, overrides)
    return Run(session.perform(words, config_dir, progress), packages, load_backbone)


def _packages(trusted: Iterable[str]) -> tuple[str, ...]:
    return (trusted,) if isinstance(trusted, str) else tuple(trusted)


def _trusted(run: Ref, trusted: Iterable[str]) -> tuple[str, ...]:
    return _packages(trusted) or (run.trusted if isinstance(run, Run) else ())


def _ref(run: Ref | None) -> str | None:
    """A run as `ckpt=` takes it: written as one would type it."""
    return run.name if isinstance(run, Run) else None if run is None else os.fspath(run)


def _on(run: Ref, stage: str, data: Any, config_dir: str | Path | None) -> dict[str, Any]:
    return {"stage": stage, "ckpt": _ref(run), **call.data_words(data, config_dir)}


def _place(name: str | None, runs_dir: str | Path | None) -> dict[str, Any]:
    return {"name": name, "runs_dir": runs_dir}


def _beside(run: Ref, root: str) -> dict[str, Any]:
    """A folder in the run's own for each folder that is embedded; nothing where the weights are of no run."""
    folder = places.find_run(_ref(run))
    if folder is None or not places.is_run(folder):
        return {}
    last = re.sub(r"[^\w.-]+", "-", Path(root).expanduser().resolve().name).strip("-.")
    return {"name": f"{folder.name}/embed-{last or 'data'}", "runs_dir": str(folder.parent)}


def _embedded(run: Run) -> Embedded:
    import numpy as np

    files = tuple(path for split in ("train", "test") if (path := run.path / f"features_{split}.npz").is_file())
    parts = []
    for file in files:
        with np.load(file) as opened_file:  # plain arrays, no pickle
            parts.append({key: opened_file[key] for key in opened_file.files})

    def joined(key: str) -> Any:
        return np.concatenate([part[key] for part in parts]) if all(key in part for part in parts) else None

    names = [file.stem.removeprefix("features_") for file in files]
    return Embedded(
        features=joined("features"),
        labels=joined("labels"),
        classes=parts[0]["classes"],
        split=np.concatenate([np.full(len(part["labels"]), name) for part, name in zip(parts, names, strict=True)]),
        paths=joined("paths"),
        targets=joined("targets"),
        files=files,
        run=run,
    )
