"""The verdict on a representation: kNN, linear probe and label-free quality, beside two baselines.

The keys of the results are those of results.json. The baselines go through the same protocol: the same backbone with
random weights, and naive features such as raw pixels. What a method learned is what it adds to them.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import EvalBatch, Features, extract
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.evaluation.quality import alignment, feature_std, rankme, uniformity

log = logging.getLogger("ssl_lightning")


def judge(
    train: Features,
    test: Features,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """kNN and linear top-1 on the test features, fractions in 0..1, and the protocol in words.

    The bank of the kNN and the training set of the probe are all labelled rows of `train`. With fewer rows than k, k
    becomes that number, and the protocol says so. `linear_top5` comes in with more than five classes. With one labelled
    training image there is no linear probe, and `linear_top1` is None.

    Raises:
        UserError: no labelled image in one of the two (then only `quality` can be told).
    """
    train, test = train.labelled(), test.labelled()
    if not len(train) or not len(test):
        raise UserError("kNN and linear probe need labelled images in both splits; without them only quality is told")
    x, labels, test_x, test_labels = (t.to(device) for t in (train.x, train.labels, test.x, test.labels))
    probe = probe or ProbeSettings()
    if len(train) < 2:
        protocol = {"knn": f"cosine, k=1, T={temperature:g}, bank 1", "linear": "none: one labelled training image"}
        top1 = _knn(train, test, 1, temperature, device)
        return {"knn_top1": top1, "linear_top1": None, "protocol": protocol}
    linear = probe_grid(x, labels, test_x, test_labels, num_classes, probe)
    return {
        "knn_top1": _knn(train, test, k, temperature, device),
        "linear_top1": linear.top1,
        **({"linear_top5": linear.top5} if linear.top5 is not None else {}),
        "protocol": {
            "knn": f"cosine, k={min(k, len(train))}, T={temperature:g}, bank {len(train)}",
            "linear": f"{probe.describe()}; chosen lr {linear.lr:g}, weight decay {linear.weight_decay:g}",
        },
    }


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
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
    naive_name: str = "raw_pixels",
) -> dict[str, dict[str, Any]]:
    """The same protocol for random weights and for the modality's naive features (of images the raw pixels).

    Args:
        random_init: train and test features of the backbone with random weights, from `random_features`.
        naive: (N, P) and (M, P), row by row the items of `random_init`. Their kNN is taken as they are and with
            the training mean taken off; the higher one, the harder to beat, is told, and `variant` says which it is.
        naive_name: their key in what is returned.
    """
    found = judge(*random_init, num_classes, k, temperature, probe, device)
    train, test = (replace(f, x=x).labelled() for f, x in zip(random_init, naive, strict=True))
    mean = train.x.mean(dim=0)
    knn = {
        "plain": _knn(train, test, k, temperature, device),
        "centered": _knn(replace(train, x=train.x - mean), replace(test, x=test.x - mean), k, temperature, device),
    }
    variant = max(knn, key=lambda name: knn[name])
    return {
        "random_init": {key: found[key] for key in ("knn_top1", "linear_top1")},
        naive_name: {"knn_top1": knn[variant], "variant": variant},
    }


def random_features(
    backbone: nn.Module,
    batches: Iterable[Tensor],
    train_loader: Iterable[EvalBatch],
    test_loader: Iterable[EvalBatch],
    device: torch.device | str = "cpu",
) -> tuple[Features, Features]:
    """Train and test features of a backbone with random weights, after `calibrate_batchnorm` on `batches`."""
    backbone.to(device)
    calibrate_batchnorm(backbone, (batch.to(device) for batch in batches))
    embed: Callable[[Tensor], Tensor] = backbone
    return extract(embed, train_loader, device), extract(embed, test_loader, device)


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


def _knn(train: Features, test: Features, k: int, temperature: float, device: torch.device | str) -> float:
    bank, bank_labels, queries, labels = (t.to(device) for t in (train.x, train.labels, test.x, test.labels))
    return knn_top1(bank, bank_labels, queries, labels, min(k, len(train)), temperature)
