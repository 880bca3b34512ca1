"""Time and memory of a loss, forward and backward: NT-Xent streamed against the plain matrix, then a line per loss.

python -m benchmarks.losses
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.losses.barlow_twins import BarlowTwinsLoss
from ssl_lightning.losses.byol import BYOLLoss
from ssl_lightning.losses.dcl import DCL
from ssl_lightning.losses.hard_negative import HardNegative
from ssl_lightning.losses.info_nce import InfoNCE
from ssl_lightning.losses.nt_xent import NTXent
from ssl_lightning.losses.ressl import ReSSLLoss
from ssl_lightning.losses.sig_reg import SIGReg
from ssl_lightning.losses.sup_con import SupConLoss
from ssl_lightning.losses.swav import SwAVLoss
from ssl_lightning.losses.tico import TiCoLoss
from ssl_lightning.losses.vicreg import VICRegLoss
from ssl_lightning.losses.w_mse import WMSELoss
from ssl_lightning.parts.sinkhorn import sinkhorn

BATCHES = (256, 4096)
Step = Callable[[Tensor, Tensor], Tensor]


def steps(device: str) -> dict[str, tuple[int, Step]]:
    """name -> (width of the vectors, the loss of two views); a queue has 65,536 rows, SwAV 3,000 prototypes."""
    queue = normalize(torch.randn(65536, 128, device=device), dim=1)
    prototypes = normalize(torch.randn(3000, 128, device=device), dim=1)
    directions = normalize(torch.randn(64, 256, device=device), dim=0)
    covariance = torch.eye(256, device=device)

    def swav(a: Tensor, b: Tensor) -> Tensor:
        scores = [normalize(z, dim=1) @ prototypes.T for z in (a, b)]
        return SwAVLoss()(scores, [sinkhorn(s) for s in scores])

    def sup_con(a: Tensor, b: Tensor) -> Tensor:
        return SupConLoss()(a, b, torch.arange(len(a), device=a.device) % 10)

    return {
        "nt_xent, matrix": (128, NTXent(form="matrix")),
        "nt_xent": (128, NTXent()),
        "info_nce, batch": (128, InfoNCE()),
        "info_nce, queue": (128, lambda a, b: InfoNCE()(a, b.detach(), queue)),
        "dcl": (128, DCL()),
        "hard_negative": (128, HardNegative()),
        "sup_con": (128, sup_con),
        "ressl": (128, lambda a, b: ReSSLLoss()(a, b, queue)),
        "byol": (256, BYOLLoss()),
        "tico": (256, lambda a, b: TiCoLoss()(a, b, covariance)[0]),
        "barlow_twins": (2048, BarlowTwinsLoss()),
        "vicreg": (2048, VICRegLoss()),
        "w_mse": (64, WMSELoss()),
        "sig_reg": (64, lambda a, b: SIGReg()(a, directions) + SIGReg()(b, directions)),
        "swav": (128, swav),
    }


def views(batch: int, dim: int, device: str) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, dim, device=device, requires_grad=True) for _ in range(2)]


def step(loss: Step, inputs: list[Tensor]) -> None:
    """Forward and backward."""
    torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)


def seconds(loss: Step, inputs: list[Tensor]) -> float:
    start = time.perf_counter()
    step(loss, inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def growth_mb(name: str, batch: int, device: str) -> float:
    """How far one step drives up the peak memory, after a small step has loaded whatever gets loaded."""
    dim, loss = steps(device)[name]
    step(loss, views(128, dim, device))
    inputs = views(batch, dim, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, inputs)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # The peak so far (imports, or the parent's own, which is inherited) may be above what is in use now, and would hide
    # growth: fill up to it first.
    before, ballast = peak_mb(), []
    while peak_mb() < before + 1:
        ballast.append(torch.ones(2**16))
    before = peak_mb()
    step(loss, inputs)
    return peak_mb() - before


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def memory(name: str, batch: int, device: str) -> float:
    """On a CPU only the process' own peak tells, and it never falls: a fresh one is asked."""
    if device == "cuda":
        return growth_mb(name, batch, device)
    command = [sys.executable, "-m", "benchmarks.losses", f"--memory={name}", f"--batch={batch}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def times(names: list[str], batch: int, device: str, rounds: int = 1) -> dict[str, float]:
    """Median seconds of each, measured in turn."""
    every = steps(device)
    inputs = {name: views(batch, every[name][0], device) for name in names}
    took: dict[str, list[float]] = {name: [] for name in names}
    for n in range(rounds + 1):
        for name in names:
            value = seconds(every[name][1], inputs[name])
            if n:  # the first round warms up
                took[name].append(value)
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--memory", choices=list(steps("cpu")), help="only measure this loss' memory in this process")
    args = parser.parse_args()
    if args.memory:
        print(growth_mb(args.memory, args.batch, "cpu"))
        return
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        names = ["nt_xent, matrix", "nt_xent"]  # 4,096 views of 2,048 images
        (matrix, streamed), (large, small) = (
            times(names, args.batch, device, rounds=5).values(),
            (memory(name, args.batch, device) for name in names),
        )
        print(
            f"nt_xent {2 * args.batch} x 128 on {device}: streamed {matrix / streamed:.1f} x faster than the matrix "
            f"({1e3 * matrix:.0f} -> {1e3 * streamed:.0f} ms), 1/{large / max(small, 1):.0f} of its memory "
            f"({large:.0f} -> {small:.0f} MB)"
        )
        found = {batch: times(list(steps(device)), batch, device) for batch in BATCHES}
        print(f"{'loss on ' + device:18}" + "".join(f"{f'batch {batch}':>26}" for batch in BATCHES))
        for name, (dim, _) in steps(device).items():
            cells = [f"{1e3 * found[b][name]:9.1f} ms {memory(name, b, device):8.0f} MB" for b in BATCHES]
            print(f"{name:18}" + "".join(f"{cell:>26}" for cell in cells) + f"   P = {dim}", flush=True)


if __name__ == "__main__":
    main()
