"""`--help`: the groups and what each offers, common overrides, five examples. Only folders are listed: it is quick."""

from __future__ import annotations

from pathlib import Path

GROUPS = (
    ("method", "what is learned"),
    ("backbone", "the network that is kept"),
    ("data", "the images"),
    ("views", "how an image is augmented"),
    ("stage", "what to do: pretrain, or evaluate and use a run"),
    ("task", "what labels mean"),
    ("optimizer", "how weights move"),
    ("scheduler", "the learning rate over time"),
    ("trainer", "devices, precision, length"),
    ("callbacks", "what is watched"),
    ("logger", "where curves go; several: logger=[csv,wandb]"),
    ("experiment", "a recipe with a number to expect"),
    ("debug", "short runs to find a fault"),
)

COMMON = (
    ("name=NAME", "the run's folder, runs/NAME (default <method>-<data>)"),
    ("data.root=DIR", "where the images are"),
    ("data.batch_size=256", "images per device and step"),
    ("trainer.max_epochs=100", "length"),
    ("trainer.devices=4", "processes or GPUs"),
    ("trainer.precision=bf16-mixed", "precision, as Lightning names it"),
    ("optimizer.base_lr=0.3", "learning rate for a global batch of 256"),
    ("method.loss.temperature=0.2", "any value of any part, by its place (--cfg job shows them all)"),
    ("ckpt=runs/moco-cifar10", "weights for a stage, or to start a training from"),
    ("seed=0  resume=auto|must|never", "reproduce; continue, or start again"),
)

EXAMPLES = (
    ("", "the demo: minutes on a laptop"),
    ("method=moco data=cifar10 trainer.devices=4", "MoCo v2 on CIFAR-10, four processes"),
    ("stage=linear ckpt=runs/moco-cifar10 data=cifar10", "evaluate it"),
    ("stage=finetune ckpt=runs/moco-cifar10 data=folder data.root=photos data.label_fraction=0.01", "use it"),
    ("-m method=simclr method.loss.temperature=0.1,0.2,0.5 data.batch_size=128,256", "a sweep"),
)

FLAGS = (
    ("-m, --multirun", "run every combination of comma-separated values"),
    ("--cfg job [--resolve]", "print the whole config and stop"),
    ("--config-dir DIR", "a folder with groups of your own, searched after ours"),
    ("--version, -h, --help", ""),
)


def conf_dir() -> Path:
    """The folder of configs: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def options(group: str, folders: tuple[Path, ...] = ()) -> list[str]:
    """The names that may stand after `group=` (`_loader` and the like are for other yamls to begin with)."""
    found = set()
    for folder in (conf_dir(), *folders):
        root = folder / group  # recipes are filed in folders; elsewhere a folder is a group of its own (method/loss)
        files = root.rglob("*.yaml") if group == "experiment" else root.glob("*.yaml")
        found |= {file.relative_to(root).with_suffix("").as_posix() for file in files if file.stem[0] != "_"}
    return sorted(found)


def groups(folders: tuple[Path, ...] = ()) -> list[str]:
    """Every group there is, nested ones (`method/loss`) too."""
    files = [file.relative_to(folder) for folder in (conf_dir(), *folders) for file in folder.rglob("*.yaml")]
    found = {file.parent.as_posix() for file in files if file.parts[0] != "experiment"} - {"."}
    return sorted(found | {"experiment"})


def text(folders: tuple[Path, ...] = ()) -> str:
    """The whole help."""
    lines = ["Self-supervised learning on images: pretrain, evaluate and use a backbone.", ""]
    lines += ["  python -m ssl_lightning [group=option ...] [key=value ...]", "", "Groups"]
    for group, meaning in GROUPS:
        lines += [f"  {group:<11} {meaning}", f"  {'':<11} {' '.join(options(group, folders))}"]
    nested = [group for group in groups(folders) if "/" in group]
    lines += [f"  {group:<11} {' '.join(options(group, folders))}" for group in nested]
    for title, pairs in (("Common overrides", COMMON), ("Flags", FLAGS)):
        lines += ["", title, *(f"  {left:<31} {right}".rstrip() for left, right in pairs)]
    lines += ["", "Examples"]
    for command, meaning in EXAMPLES:
        lines += [f"  # {meaning}", f"  python -m ssl_lightning {command}".rstrip()]
    return "\n".join(lines)
