"""How long `--help` and a mistyped key take to answer, as whole processes, beside `import torch` alone.

python -m benchmarks.startup
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "--help": ["-m", "ssl_lightning", "--help"],
    "a wrong key": ["-m", "ssl_lightning", "data.batchsize=8"],
    "import torch": ["-c", "import torch"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(5):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    torch_alone = statistics.median(times["import torch"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name}: {median:.2f} s, {median / torch_alone:.2f} of `import torch`")


if __name__ == "__main__":
    main()
