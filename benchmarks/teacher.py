"""The teacher's fused update against a Python loop over a ResNet-50's parameters. `python -m benchmarks.teacher`"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models import resnet50

from ssl_lightning.parts.ema_teacher import EMATeacher

ROUNDS, MOMENTUM = 15, 0.996


def new_tensors(teacher: list[Tensor], student: list[Tensor]) -> None:
    """As most implementations have it: t.data = t.data * m + s.data * (1 - m)."""
    for t, s in zip(teacher, student, strict=True):
        t.data = t.data * MOMENTUM + s.data * (1 - MOMENTUM)


def in_place(teacher: list[Tensor], student: list[Tensor]) -> None:
    """The better loop: t.mul_(m).add_(s, alpha=1 - m)."""
    for t, s in zip(teacher, student, strict=True):
        t.mul_(MOMENTUM).add_(s, alpha=1 - MOMENTUM)


def milliseconds(update: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    update()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


@torch.no_grad()
def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = [p.detach() for p in resnet50().to(device).parameters()]
    lists = [[p.clone() for p in student] for _ in range(3)]
    ema = EMATeacher(MOMENTUM, MOMENTUM)
    ema._teacher, ema._student = lists[0], student
    updates: dict[str, Callable[[], None]] = {
        "fused": lambda: ema.move(MOMENTUM),
        "loop, new tensors": lambda: new_tensors(lists[1], student),
        "loop, in place": lambda: in_place(lists[2], student),
    }
    times: dict[str, list[float]] = {name: [] for name in updates}
    for n in range(ROUNDS + 2):
        for name, update in updates.items():
            took = milliseconds(update, device)
            if n >= 2:  # the first rounds warm up
                times[name].append(took)
    medians = {name: statistics.median(values) for name, values in times.items()}
    count = sum(p.numel() for p in student) / 1e6
    print(f"teacher update, resnet50 ({count:.1f} M parameters) on {device}: fused {medians['fused']:.1f} ms")
    for name in ("loop, new tensors", "loop, in place"):
        print(f"  against a {name}: {medians[name] / medians['fused']:.1f} x faster ({medians[name]:.1f} ms)")


if __name__ == "__main__":
    main()
