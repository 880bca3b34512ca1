"""NT-Xent streamed against the plain matrix: time and memory, as ratios from interleaved runs.

python -m benchmarks.losses
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from ssl_lightning.losses.nt_xent import NTXent

DIM = 128
ROUNDS = 5
FORMS = ("matrix", "streamed")


def views(rows: int, device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows // 2, DIM, device=device, requires_grad=True) for _ in range(2)]


def step(form: str, inputs: list[torch.Tensor]) -> None:
    """Forward and backward."""
    torch.autograd.grad(NTXent(form=form)(*inputs), inputs)  # type: ignore[arg-type]


def seconds(form: str, inputs: list[torch.Tensor]) -> float:
    start = time.perf_counter()
    step(form, inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def growth_mb(form: str, rows: int, device: str) -> float:
    """How far one step drives up the peak memory, after a small step has loaded whatever gets loaded."""
    step(form, views(64, device))
    inputs = views(rows, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(form, inputs)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # The peak so far (imports, or the parent's own, which is inherited) may be above what is in use now, and would hide
    # growth: fill up to it first.
    before, ballast = peak_mb(), []
    while peak_mb() < before + 1:
        ballast.append(torch.ones(2**16))
    before = peak_mb()
    step(form, inputs)
    return peak_mb() - before


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def growth_in_a_fresh_process(form: str, rows: int, threads: int) -> float:
    """On a CPU only the process' own peak tells, and it never falls."""
    command = [sys.executable, "-m", "benchmarks.losses", f"--memory={form}", f"--rows={rows}", f"--threads={threads}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(rows: int, device: str, threads: int) -> str:
    if device == "cuda":
        large, small = (growth_mb(form, rows, device) for form in FORMS)
    else:
        large, small = (growth_in_a_fresh_process(form, rows, threads) for form in FORMS)
    inputs = views(rows, device)
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for n in range(ROUNDS + 1):
        for form in FORMS:
            took = seconds(form, inputs)
            if n:  # the first round warms up
                times[form].append(took)
    matrix, streamed = (statistics.median(times[form]) for form in FORMS)
    return (
        f"nt_xent {rows} x {DIM} on {device} ({threads} threads): {matrix / streamed:.1f} x faster "
        f"({matrix * 1e3:.1f} -> {streamed * 1e3:.1f} ms), "
        f"1/{large / max(small, 1):.0f} of the memory ({large:.0f} -> {small:.0f} MB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096, help="2N, the number of views in the global batch")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory", choices=FORMS, help="only measure this form's memory in this process")
    args = parser.parse_args()
    if args.memory:
        torch.set_num_threads(args.threads[0])
        print(growth_mb(args.memory, args.rows, "cpu"))
        return
    for threads in args.threads:
        torch.set_num_threads(threads)
        print(compare(args.rows, "cpu", threads), flush=True)
    if torch.cuda.is_available():
        print(compare(args.rows, "cuda", args.threads[-1]))


if __name__ == "__main__":
    main()
