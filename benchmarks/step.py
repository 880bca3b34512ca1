"""The whole `pretrain` command (views, callbacks, logging) against a bare PyTorch loop on ready-made views.

    python -m benchmarks.step

Small convnet, SimCLR, batch 256, 32 px. Each side runs in a process of its own, in turn; images/s leave out the start.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

STEPS, WARMUP, BATCH, ROUNDS = 24, 4, 256, 3


def bare() -> float:
    """Images/s of a loop with nothing but the network, the loss and the optimizer."""
    from ssl_lightning.losses.nt_xent import NTXent
    from ssl_lightning.models.convnet import ConvNetSmall
    from ssl_lightning.models.heads import MLP

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = ConvNetSmall().to(device, memory_format=torch.channels_last)
    head = MLP(backbone.out_dim, 512, 128).to(device)
    loss = NTXent(0.2)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], 1e-3)
    views = torch.randn(2 * BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    start = 0.0
    for step in range(STEPS):
        if step == WARMUP:
            start = _now(device)
        optimizer.zero_grad()
        loss(*head(backbone(views)).chunk(2)).backward()
        optimizer.step()
    return (STEPS - WARMUP) * BATCH / (_now(device) - start)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def whole() -> float:
    """Images/s of the command line's run, read from its own metrics.csv."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = [f"data.batch_size={BATCH}", f"data.size={BATCH * STEPS}"]
        length = ["trainer.max_epochs=1", "trainer.limit_val_batches=0"]
        heads = [f"method.projector.{key}" for key in ("hidden_dim=512", "out_dim=128", "norm=true")]
        rest = [f"runs_dir={folder}", "name=bench", "stage.judge=false"]
        often = f"callbacks.step_logger.every_n_steps={WARMUP}"
        command = [sys.executable, "-m", "ssl_lightning", "optimizer=adamw", *sizes, *length, *heads, *rest, often]
        subprocess.run(command, check=True, capture_output=True)
        with open(Path(folder) / "bench" / "metrics.csv", newline="") as file:
            column = [row.get("train/images_per_second") for row in csv.DictReader(file)]
    return statistics.median([float(rate) for rate in column if rate][1:])


def main() -> None:
    if sys.argv[1:] == ["bare"]:
        print(bare())
        return
    pairs = []
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "benchmarks.step", "bare"]
        alone = subprocess.run(command, check=True, capture_output=True, text=True)
        pairs.append((whole(), float(alone.stdout)))
    ratio = statistics.median(a / b for a, b in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs))
    print(f"pretrain step, batch {BATCH}: {ours:.0f} images/s, bare loop {theirs:.0f} images/s: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
