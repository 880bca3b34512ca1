"""The verdict on a representation: kNN, linear probe and label-free quality, beside two baselines.

The keys of the results are those of results.json. The baselines go through the same protocol: the same backbone with
random weights, and naive features such as raw pixels. What a method learned is what it adds to them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.readouts import FEATURES
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn_average, knn_top1
from ssl_lightning.evaluation.linear_probe import ProbeResult, ProbeSettings, probe_grid
from ssl_lightning.evaluation.quality import alignment, feature_std, rankme, uniformity

log = logging.getLogger("ssl_lightning")


BOTH = ("knn", "linear")  # what is measured
TOP1 = "top1"
KeepProbe = Callable[[ProbeResult], None]


def judge(
    train: Features,
    test: Features,
    task: Task,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
    what: Sequence[str] = BOTH,
    chunk: int | None = None,
    keep_probe: KeepProbe | None = None,
    widths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """kNN and linear probe on the test features by the task's metrics, of classes top-1, and the protocol in words.

    The bank of the kNN and the training set of the probe are all labelled rows of `train`. With fewer rows than k, k
    becomes that number, and the protocol says so. `linear_top5` comes in with more than five classes. With one labelled
    training image there is no linear probe, and `linear_top1` is None.

    Args:
        task: prepared for these labels.
        what: of "knn" and "linear".
        chunk: test items of the kNN at a time; None chooses.
        keep_probe: is given the chosen linear probe.
        widths: of the readouts that lie side by side in the features, for the probe; None: they are one readout.

    Raises:
        UserError: no labelled image in one of the two (then only `quality` can be told).
    """
    train, test = train.labelled(), test.labelled()
    if not len(train) or not len(test):
        raise UserError("kNN and linear probe need labelled images in both splits; without them only quality is told")
    found: dict[str, Any] = {}
    protocol = {}
    if "knn" in what:
        found |= _named("knn", _knn(train, test, task, k, temperature, device, chunk))
        protocol["knn"] = f"cosine, k={min(k, len(train))}, T={temperature:g}, bank {len(train)}"
    if "linear" in what and len(train) < 2 and "knn" in what:
        return found | {
            f"linear_{task.main}": None,
            "protocol": protocol | {"linear": "none: one labelled training image"},
        }
    if "linear" in what:
        probe = probe or ProbeSettings()
        x, labels, test_x, test_labels = (t.to(device) for t in (train.x, train.labels, test.x, test.labels))
        linear = probe_grid(x, labels, test_x, test_labels, task.to(device), probe, widths)
        if keep_probe is not None:
            keep_probe(linear)
        found |= _named("linear", linear.scores) | ({"readout": linear.readout} if widths else {})
        protocol["linear"] = f"{probe.describe()}; chosen {linear.chosen(probe)}"
    return found | {"protocol": protocol}


def _named(what: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{what}_{name}": value for name, value in scores.items()}


def told(found: Mapping[str, Any], task: Task, what: Sequence[str] = BOTH) -> dict[str, Any]:
    """The part of what `judge` found that is told of a baseline."""
    wanted = [f"{kind}_{name}" for kind in what for name in task.beside]
    return {key: found[key] for key in found if (key in wanted if wanted else key.partition("_")[0] in what)}


def quality(features: Features, pairs: tuple[Tensor, Tensor] | None = None, seed: int = 0) -> dict[str, float | None]:
    """Label-free measures of the features of a split.

    `pairs` are the features (N, D) of two augmented views of the same images; without them alignment is None, and so
    are the measures of spread where there is one image only, and, with a word, what cannot be computed.
    """
    several = len(features) > 1
    return {
        "rankme": _measured(rankme, features.x),
        "alignment": _measured(alignment, *pairs) if pairs is not None else None,
        "uniformity": _measured(uniformity, features.x, seed=seed) if several else None,
        "feature_std": _measured(feature_std, features.x) if several else None,
    }


def _measured(measure: Callable[..., float], *features: Any, **options: Any) -> float | None:
    try:
        return measure(*features, **options)
    except (RuntimeError, ValueError) as error:  # of features that are no numbers, say
        log.warning("%s cannot be measured: %s", measure.__name__, str(error).splitlines()[0][:200])
        return None


def baselines(
    random_init: tuple[Features, Features],
    naive: tuple[Tensor, Tensor],
    task: Task,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
    naive_name: str = "raw_pixels",
    what: Sequence[str] = BOTH,
    naive_what: Sequence[str] = ("knn",),
    chunk: int | None = None,
    widths: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """The same protocol for random weights and for the modality's naive features (of images the raw pixels).

    A task that has a best constant answer (the mean, the frequencies) tells that, too.

    Args:
        random_init: train and test features of the backbone with random weights, after `calibrate_batchnorm`.
        naive: (N, P) and (M, P), row by row the items of `random_init`. Their kNN is taken as they are and with
            the training mean taken off; the better one, the harder to beat, is told, and `variant` says which it is.
        naive_name: their key in what is returned.
        what, naive_what: of "knn" and "linear", for random weights and for naive features.
        widths: of the readouts of `random_init`, as in `judge`.
    """
    found = judge(*random_init, task, k, temperature, probe, device, what, chunk, widths=widths)
    given = (k, temperature, device, naive_what, chunk)
    return {"random_init": told(found, task), **beside(random_init, naive, task, probe, naive_name, *given)}


def beside(
    items: tuple[Features, Features],
    naive: tuple[Tensor, Tensor],
    task: Task,
    probe: ProbeSettings | None,
    naive_name: str,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
    what: Sequence[str] = ("linear",),
    chunk: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The baselines that need no network: naive features of these items, and the best constant answer."""
    train, test = (replace(f, x=x).labelled() for f, x in zip(items, naive, strict=True))
    found: dict[str, Any] = {}
    if "knn" in what:
        shift = train.x.mean(dim=0)
        moved = replace(train, x=train.x - shift), replace(test, x=test.x - shift)
        pairs = {"plain": (train, test), "centered": moved}
        knn = {name: _knn(*pair, task, k, temperature, device, chunk) for name, pair in pairs.items()}
        sign = 1 if task.higher else -1
        variant = max(knn, key=lambda name: sign * knn[name][task.main])
        found |= told(_named("knn", knn[variant]), task) | {"variant": variant}
    if "linear" in what:
        plain = replace(probe or ProbeSettings(), readouts=(FEATURES,))  # naive features have no other
        found |= told(judge(train, test, task, probe=plain, device=device, what=("linear",)), task)
    return {naive_name: found, **constant(train.labels, test.labels, task)}


def constant(train: Tensor, test: Tensor, task: Task) -> dict[str, dict[str, float]]:
    """The best answer that is the same for all items, of targets (N, T) and (M, T); {} of a task that tells none."""
    if not task.chance:
        return {}
    outputs = task.to("cpu").outputs_of(train.mean(dim=0, keepdim=True))
    return {task.chance: task.measure(outputs.expand(len(test), -1).contiguous(), test)}


def metric_of(task: Task) -> dict[str, Any]:
    """What a sweep ranks by, for results.json: the main metric, where it is not the top-1 of classes."""
    return {} if task.main == TOP1 else {"metric": {"name": task.main, "higher_is_better": task.higher}}


@torch.no_grad()
def calibrate_batchnorm(backbone: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets the running statistics of each BatchNorm to their plain mean over `batches` of images (B, 3, H, W).

    A new network's statistics are 0 and 1, which its features do not have: in evaluation mode it would do worse than
    random weights deserve, and flatter what is compared with it. Under several ranks each passes the same batches, as
    one process would, and all hold rank 0's statistics. A network without BatchNorm is left as it is.
    """
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    flags = [(m, m.training) for m in backbone.modules()]
    momenta = [norm.momentum for norm in norms]
    backbone.eval()  # dropout and the like stay off
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: the plain mean over all batches
        norm.train()
    for batch in batches:
        backbone(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                statistic.copy_(gather_rows(statistic[None])[0])
    for module, flag in flags:
        module.training = flag


def _knn(
    train: Features,
    test: Features,
    task: Task,
    k: int,
    temperature: float,
    device: torch.device | str,
    chunk: int | None = None,
) -> dict[str, float]:
    """By votes for classes; otherwise by the mean of the neighbours' targets, weighted alike."""
    bank, bank_labels, queries, labels = (t.to(device) for t in (train.x, train.labels, test.x, test.labels))
    k = min(k, len(train))
    with progress.phase("kNN"):
        if task.reads == CLASSES:
            return {"top1": knn_top1(bank, bank_labels, queries, labels, k, temperature, chunk)}
        means = knn_average(bank, bank_labels, queries, k, temperature, chunk)
    return task.to(device).measure(task.outputs_of(means), labels)
