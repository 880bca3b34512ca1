"""What masking and small crops save a vision transformer, forward and backward. `python -m benchmarks.vit`

ViT-S/16 at 224 px: MAE's encoder at 75 % masking against the full one; two global and six local crops (96 px) against
the two global ones, beside what their numbers of tokens let expect.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ssl_lightning.models.vit import ViT
from ssl_lightning.parts.masking import hidden_count, random_places

ROUNDS, WARMUP = 5, 1


def seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    work().square().mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = 64 if device.type == "cuda" else 4
    net = ViT(224, 16, 384, 12, 6).to(device)
    x, local = (torch.randn(batch, 3, size, size, device=device) for size in (224, 96))
    visible, _ = random_places(torch.rand(batch, 196, device=device), hidden_count(196, 0.75))
    works: dict[str, Callable[[], Tensor]] = {
        "full": lambda: net.tokens(x),
        "masked": lambda: net.tokens(x, visible),
        "two global": lambda: net(torch.cat([x, x])),
        "six local as well": lambda: torch.cat([net(torch.cat([x, x])), net(torch.cat([local] * 6))]),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for n in range(ROUNDS + WARMUP):
        for name, work in works.items():
            took = seconds(work, device)
            if n >= WARMUP:
                times[name].append(took)
    full, masked, two, eight = (statistics.median(times[name]) for name in works)
    tokens = 1 + 14 * 14, 1 + 6 * 6
    print(f"ViT-S/16, {batch} images of 224 px on {device}, forward and backward")
    print(
        f"  MAE's encoder, 49 of 196 patches: {masked / full:.2f} of the full encoder's time (tokens: {50 / 197:.2f})"
    )
    ideal = (2 * tokens[0] + 6 * tokens[1]) / (2 * tokens[0])
    print(f"  2 + 6 crops: {eight / two:.2f} of the time of 2 (tokens: {ideal:.2f})")


if __name__ == "__main__":
    main()
