"""All benchmarks, one after another: `make bench`, or `python -m benchmarks [name ...]`."""

import subprocess
import sys
import time
from pathlib import Path

import torch

NO_TIMES = ("identical", "digit_strings", "sick_runs")  # they measure no time; run by hand


def main(names: list[str]) -> None:
    every = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem not in NO_TIMES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device}, {time.strftime('%Y-%m-%d')}")
    for name in names or every:
        if name not in every:
            sys.exit(f"error: there is no benchmark '{name}'; choose from {', '.join(every)}")
        start = time.perf_counter()
        print(f"\n== {name}", flush=True)
        # Each in a process of its own: threads, caches and compiled code of one do not reach the next.
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
        print(f"   ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
