"""The Python entry: what the command line does, for the user's own code. Nothing below imports this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ssl_lightning.cli import call, session
from ssl_lightning.cli.call import Ref
from ssl_lightning.modalities.feeding import attach
from ssl_lightning.modalities.learned import load_model
from ssl_lightning.runs import opened
from ssl_lightning.runs.checkpoint import Pretrained, resolve_ckpt, restored
from ssl_lightning.runs.embedded import Embedded, embedded
from ssl_lightning.runs.opened import Run

__all__ = ["Embedded", "Run", "embed", "evaluate", "finetune", "load_backbone", "load_run", "pretrain"]

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
        progress: print where the run lies, what is noticed, and a line for each epoch; False prints nothing.

    Returns:
        The run.

    Raises:
        UserError: a wrong name or value, data that cannot be used, another run in this folder, a package that is not
            installed; one line.
        KeyboardInterrupt: stopped by a signal, after the state was saved.

    Example:
        >>> run = pretrain("shapes", method="byol", epochs=1, overrides=["data.size=512"])  # doctest: +SKIP
        >>> run.results["knn_top1"]  # doctest: +SKIP
    """
    values = {
        "name": name,
        "runs_dir": runs_dir,
        "seed": seed,
        "ckpt": call.ref(ckpt),
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
        UserError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> evaluate("runs/simclr-shapes", "linear").results["linear_top1"]  # doctest: +SKIP
    """
    values = call.on(run, stage, data, config_dir)
    values |= {"seed": seed, "resume": resume} | call.place(name, runs_dir)
    return _run(values, overrides, config_dir, call.trusting(run, trusted), progress)


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
        UserError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> finetune("runs/simclr-shapes", labels_per_class=20).results["finetune_top1"]  # doctest: +SKIP
    """
    values = call.on(run, "finetune", data, config_dir)
    values |= {"seed": seed, "resume": resume, "task": task} | call.place(name, runs_dir)
    values |= {"stage.epochs": epochs, "stage.batch_size": batch_size}
    values |= {"data.labels_per_class": labels_per_class, "data.label_fraction": label_fraction}
    return _run(values, overrides, config_dir, call.trusting(run, trusted), progress)


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
        resume, overrides, config_dir, trusted, progress: as in `pretrain`. For tables beside the arrays give
            overrides=["stage.formats=[npz,parquet,csv]"].

    Returns:
        The features with labels and paths.

    Raises:
        UserError, KeyboardInterrupt: as `pretrain`.

    Example:
        >>> found = embed("runs/byol-folder", "holidays")  # doctest: +SKIP
        >>> found.features.shape, found.paths[0]  # doctest: +SKIP
    """
    call.need_npz(overrides)
    values = call.on(run, "embed", data, config_dir)
    place = call.place(name, runs_dir)
    if "data.root" in values and name is None and runs_dir is None:
        place = call.place_beside(call.ref(run), values["data.root"])
    values |= {"resume": resume, "data.batch_size": batch_size} | place
    return embedded(_run(values, overrides, config_dir, call.trusting(run, trusted), progress))


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
    return opened.opened(where, trusted=call.packages(trusted), load=load_backbone, load_model=load_model)


def load_backbone(ref: str | Path | Pretrained, trusted: Iterable[str] = ()) -> nn.Module:
    """The backbone of a run, `load_backbone("runs/moco-cifar10")`: a batch of items -> (B, .out_dim), in eval mode.

    >>> load_backbone("runs/moco-cifar10")(torch.zeros(2, 3, 32, 32)).shape  # doctest: +SKIP
    torch.Size([2, 512])

    Args:
        ref: what says how its backbone is built: a run folder, a checkpoint in one, an exported safetensors file,
            `timm:<name>`, or what `resolve_ckpt` made of one of these.
        trusted: your own packages, where the backbone's class lives in one.

    Returns:
        A plain nn.Module with `.out_dim`, `.card` (a dict that says how it is built and fed: `image_size`, `mean`,
        `std`, `method`, `data` ...), `.transform(item)` (a path, PIL image, array or tensor of any size, mode and
        depth -> its input (C, H, W), as the evaluation view of its training gives it; of audio a path, or a wave and
        its rate) and `.embed(items, batch_size=64, device=None)` (files, a folder, images or arrays -> float32
        (N, .out_dim)).

    Raises:
        UserError: there is nothing to read, it is damaged, or it is a bare state_dict: build that backbone yourself
            and use `load_weights`.
    """
    checkpoint = ref if isinstance(ref, Pretrained) else resolve_ckpt(ref)
    return attach(restored(checkpoint, trusted), checkpoint.card or {})


# ---- from arguments to a run ---------------------------------------------------------------------------------------


def _run(
    values: dict[str, Any],
    overrides: Sequence[str],
    config_dir: str | Path | None,
    trusted: Iterable[str],
    progress: bool,
) -> Run:
    packages = call.packages(trusted)
    words = call.words_of({**values, "trusted_packages": packages or None}, overrides)
    return Run(session.perform(words, config_dir, progress), packages, load_backbone, load_model)
