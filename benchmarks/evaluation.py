"""Linear evaluation: features once and a grid of probes, against the frozen backbone run again in each of 100 epochs.

    python -m benchmarks.evaluation

The re-run is timed for a few epochs and extrapolated to 100. Its accuracy is not: without augmentation a frozen
backbone gives the same features each epoch, so the same 100 epochs are trained on kept features.
"""

import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.judge import calibrate_batchnorm
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.resnet import resnet
from ssl_lightning.tasks.classify import Classify

TRAIN, TEST, CLASSES, SIZE, BATCH = 5_000, 2_000, 10, 32, 250
EPOCHS, TIMED, LR = 100, 2, 0.03


class Batch(NamedTuple):
    views: list[Tensor]
    labels: Tensor
    indices: Tensor


def batches(count: int, seed: int, device: torch.device) -> list[Batch]:
    """Images with a faint pattern of their class, so that the accuracy lies between chance and 1."""
    patterns = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    patterns = F.interpolate(patterns, size=SIZE, mode="bilinear")
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = 0.5 * patterns[labels] + F.interpolate(noise, size=SIZE, mode="nearest")
    images = images.contiguous(memory_format=torch.channels_last).to(device)
    return [Batch([images[i]], labels[i], i) for i in torch.arange(count).split(BATCH)]


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def plain_epochs(features: list[Tensor], labels: list[Tensor], probe: nn.Module, epochs: int) -> None:
    """The probe's own part of the usual loop: SGD with momentum and cosine, one learning rate."""
    optimizer = torch.optim.SGD(probe.parameters(), LR, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: 0.5 * (1 + math.cos(math.pi * e / EPOCHS)))
    for _ in range(epochs):
        for x, y in zip(features, labels, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(probe(x), y).backward()
            optimizer.step()
        schedule.step()


def compare(name: str, backbone: nn.Module, device: torch.device) -> None:
    train, test = batches(TRAIN, 1, device), batches(TEST, 2, device)
    backbone = backbone.to(device, memory_format=torch.channels_last)
    calibrate_batchnorm(backbone, [batch.views[0] for batch in train[:4]])
    backbone.eval()
    labels = [batch.labels.to(device) for batch in train]

    start = now(device)
    features, test_features = extract(backbone, train, device), extract(backbone, test, device)
    taken = now(device)
    x, y, test_x, test_y = (t.to(device) for t in (features.x, features.labels, test_features.x, test_features.labels))
    settings = ProbeSettings()
    found = probe_grid(x, y, test_x, test_y, Classify.of(CLASSES), settings)
    done = now(device)

    probe = nn.Linear(x.shape[1], CLASSES).to(device)
    again = now(device)
    for _ in range(TIMED):
        with torch.no_grad():
            rerun = [backbone(batch.views[0]) for batch in train]
        plain_epochs(rerun, labels, probe, 1)
    rerun_seconds = (now(device) - again) / TIMED * EPOCHS  # without the test set, which is in our own time

    mean, std = x.mean(0), x.std(0) + 1e-6
    probe = nn.Linear(x.shape[1], CLASSES).to(device)
    plain_epochs([(part - mean) / std for part in x.split(BATCH)], labels, probe, EPOCHS)
    accuracy = (probe((test_x - mean) / std).argmax(1) == test_y).double().mean().item()

    probes = len(settings.lrs) * len(settings.weight_decays)
    print(f"linear evaluation, {name}, {TRAIN:,} + {TEST:,} images of {SIZE} px on {device}")
    print(f"  features once {taken - start:.2f} s + {probes} probes {done - taken:.2f} s: top-1 {found.top1:.3f}")
    extrapolated = f"{rerun_seconds:.0f} s (extrapolated from {TIMED} epochs)"
    print(f"  backbone re-run for {EPOCHS} epochs, one probe: {extrapolated}: top-1 {accuracy:.3f}")
    print(f"  {rerun_seconds / (done - start):.0f} x faster")


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    compare("convnet_small", ConvNetSmall(), device)
    if device.type == "cuda":
        compare("resnet18", resnet("resnet18", stem="cifar"), device)


if __name__ == "__main__":
    main()
