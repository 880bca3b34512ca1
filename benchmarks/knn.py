"""Cosine kNN against the least it could cost, a chunked matrix product and topk. `python -m benchmarks.knn`"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ssl_lightning.evaluation.knn import SIMILARITIES_AT_ONCE, knn_predict

BANK, DIM, CLASSES, K, ROUNDS = 50_000, 512, 10, 20, 4


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time on a GPU; on a CPU the process' own time over its threads, which busy neighbours disturb less."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (clock() - start) / (1 if device.type == "cuda" else torch.get_num_threads())


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = 10_000 if device.type == "cuda" else 5_000
    bank, queries = torch.randn(BANK, DIM, device=device), torch.randn(count, DIM, device=device)
    labels = torch.randint(0, CLASSES, (BANK,), device=device)
    columns, rows, chunk = F.normalize(bank, dim=1).T, F.normalize(queries, dim=1), SIMILARITIES_AT_ONCE // BANK

    def bare() -> None:
        for part in rows.split(chunk):
            (part @ columns).topk(K, dim=1)

    def ours() -> None:
        knn_predict(bank, labels, queries, K)

    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for n in range(ROUNDS + 1):
        for name, work in (("ours", ours), ("bare", bare)):
            took = milliseconds(work, device)
            if n:  # the first round warms up
                times[name].append(took)
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["bare"], strict=True))
    took = statistics.median(times["ours"])
    print(f"kNN, {BANK:,} x {count:,} x {DIM} on {device}: {took:.0f} ms")
    print(f"  {ratio:.2f} of the time of a chunked matrix product and topk on rows normalised beforehand")


if __name__ == "__main__":
    main()
