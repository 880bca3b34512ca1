"""What people type who come from elsewhere (`lr`, `epochs`, `model=`, `--gpus 2`), and what it is called here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ssl_lightning.cli import help, moved
from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError

# Words on the left mean the first key on the right that the composed config has.
_KEYS = {
    "lr learning_rate base_lr max_lr peak_lr": "stage.base_lr optimizer.base_lr",
    "epochs epoch max_epochs num_epochs n_epochs nepochs": "stage.epochs trainer.max_epochs",
    "batch_size batchsize bs batch per_device_batch_size train_batch_size": "stage.batch_size data.batch_size",
    "devices device gpus gpu ngpus n_gpus num_gpus num_devices nproc world_size num_processes": "trainer.devices",
    "nodes num_nodes nnodes": "trainer.num_nodes",
    "steps max_steps num_steps iters max_iters": "trainer.max_steps",
    "precision amp fp16 bf16 half mixed_precision": "trainer.precision",
    "workers num_workers n_workers num_worker": "data.num_workers",
    "wd weight_decay": "stage.weight_decay optimizer.weight_decay",
    "warmup warmup_epochs warmup_steps": "stage.warmup_epochs scheduler.warmup_epochs",
    "momentum ema ema_decay": "method.teacher.momentum optimizer.optimizer.momentum",
    "betas": "optimizer.optimizer.betas",
    "temperature temp tau": "method.loss.temperature method.teacher_temperature stage.temperature",
    "queue queue_size": "method.queue_size",
    "proj_dim projection_dim projector_dim out_dim": "method.projector.out_dim",
    "proj_hidden_dim hidden_dim": "method.projector.hidden_dim",
    "mask_ratio": "method.mask_ratio",
    "patch_size patch": "backbone.patch_size",
    "image_size img_size imgsize crop_size input_size resolution": "data.image_size",
    "crops num_crops n_crops local_crops": "views.local.count views.global_1.count",
    "root path dir data_dir data_path data_root image_dir train_dir folder": "data.root",
    "val_fraction val_split test_split": "data.test_fraction",
    "k knn_k neighbors neighbours": "stage.k",
    "checkpoint ckpt_path weights pretrained load resume_from resume_from_checkpoint init_from": "ckpt",
    "output_dir out_dir save_dir log_dir logdir default_root_dir exp_dir output": "runs_dir",
    "run_name exp_name experiment_name run exp tag": "name",
    "seeds random_seed random_state manual_seed": "seed",
    "project": "logger.wandb.project",
    "compile": "stage.compile",
    "loss": "method/loss",
    "dataset datasets": "data",
    "encoder network net arch architecture": "backbone",
    "model algorithm algo": "method",
    "optim optimiser": "optimizer",
    "augmentations augmentation augment aug transform transforms": "views",
    "lr_scheduler schedule sched": "scheduler",
    "task mode": "stage",
    "config cfg recipe": "experiment",
}
_OPTIONS = {"wandb": "logger", "tensorboard": "logger", "csv": "logger", "cpu": "trainer", "ddp": "trainer"}
MEANT = {word: keys.split() for words, keys in _KEYS.items() for word in words.split()}
GROUPS = {group for group, _ in help.GROUPS} | {"method/loss"}
ALWAYS = {"lr", "epochs"}  # every run has such a key, whatever else may be called so
OF_THE_RATE = "optimizer.base_lr", "stage.base_lr"


def hint(key: str, value: str, places: Collection[str], folders: tuple[Path, ...] = ()) -> str:
    """ " Did you mean ...?" for a key that no config has, or "" where nothing is known of it.

    `places`: every key and group of the composed config; `folders`: those with groups of the user's own. Raises
    UserError for a key of older versions (`moved.py`).
    """
    moved.check(key)
    part, word = key.partition(".")[0] if "." in key else "", _word(key.rpartition(".")[2])
    if word in _OPTIONS and not part:
        return f" Did you mean '{_OPTIONS[word]}={word}'?"
    meant = MEANT.get(word, [])
    near = [other for other in meant if part and other.startswith(f"{part}.")]  # of the part that was named
    found = _first(other for other in near if other in places) or _same_word(key, places)
    elsewhere = "" if found or word in ALWAYS else _first(_owned(other, folders) for other in (key, *near))
    if elsewhere and part == "data" and "data.sample_rate" in places:  # the data are of sound
        return f" '{key}' is a key of other data; a view of sound has data.length samples."
    found = found or ("" if elsewhere else _first(other for other in meant if other in places))
    if not found:
        return elsewhere or _first(_owned(other, folders) for other in meant)
    if found in GROUPS:
        return f" Did you mean '{_choice(found, word, value, folders)}'?"
    more = " It is the rate at a global batch of 256." if found in OF_THE_RATE else ""
    return f" Did you mean '{found}'?{more}"


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def flag(word: str, value: str) -> str:
    """What a flag that does not exist means here: values are written without dashes."""
    name = _word(word)
    meant = [key for key in MEANT.get(name, [name]) if not key.startswith("stage.")]
    key = f"{_OPTIONS[name]}={name}" if name in _OPTIONS else meant[-1] if meant else name
    if key in GROUPS and value:
        key = _choice(key, name, value, ()).partition("=")[0]
    return f"Values are written without dashes: {key if '=' in key else f'{key}={value or chr(46) * 3}'}"


def _choice(group: str, word: str, value: str, folders: tuple[Path, ...]) -> str:
    """`group=value` where the group, or the other one that the word may mean, has such an option."""
    others = ("backbone", "method") if word in ("model", "arch", "network", "algorithm") else (group,)
    for candidate in dict.fromkeys((group, *others)):
        if value and value in help.options(candidate, folders):
            return f"{candidate}={value}"
    return group


def _same_word(key: str, places: Iterable[str]) -> str:
    """The place in the same part with the same last word: `optimizer.betas` is optimizer.optimizer.betas."""
    part, _, word = key.rpartition(".")
    part = part.partition(".")[0]
    return min((p for p in places if part and re.fullmatch(rf"{part}\..*\.{word}", p)), key=len, default="")


def _owned(key: str, folders: tuple[Path, ...] = ()) -> str:
    """The options of a key's group that have this key, when the chosen one has not: data.root is data=folder's."""
    group, _, rest = key.partition(".")
    if not rest or group not in {name for name, _ in help.GROUPS}:
        return ""
    options = [option for option in help.options(group, folders) if _has(group, option, rest, folders)]
    families = Counter(option.partition("_")[0] for option in options)  # the ViTs before a network that stands alone
    options.sort(key=lambda option: (option != "folder", -families[option.partition("_")[0]]))
    if not options:
        return ""
    more = f" (or {', '.join(options[1:5])}{', ...' if len(options) > 5 else ''})" if len(options) > 1 else ""
    return f" '{key}' is a key of {group}={options[0]}{more}; add {group}={options[0]}"


def _has(group: str, option: str, rest: str, folders: tuple[Path, ...], depth: int = 0) -> bool:
    for folder in (help.conf_dir(), *folders):
        file = folder / group / f"{option}.yaml"
        if not file.is_file():
            continue
        try:
            node, text = plain_yaml.read_once(file), plain_yaml.text_of(file, plain_yaml.MAX_BYTES)
        except UserError:
            return False
        if not isinstance(node, dict):
            return False
        bases = [base for base in node.get("defaults") or [] if isinstance(base, str)]
        bases = [base.removeprefix(f"/{group}/").partition("@")[0] for base in bases]
        if text.startswith("# @package _global_"):
            node = node.get(group) or {}
        elif group in node and group in ("method",):
            node = node[group]
        return _reaches(node, rest) or (depth < 5 and any(_has(group, b, rest, folders, depth + 1) for b in bases))
    return False


def _reaches(node: Any, rest: str) -> bool:
    for step in rest.split("."):
        if not isinstance(node, dict) or step not in node:
            return False
        node = node[step]
    return True
