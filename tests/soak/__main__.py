"""`make soak`: random kills of every family of runs, each led to its end and compared with an uninterrupted one."""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.soak.drive import FAMILIES, ON_WEIGHTS, Family, Tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="per family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="families at the same time")
    parser.add_argument("--only", default="", help="part of the names of the families to take")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; otherwise they are thrown away")
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        chosen = [name for name in FAMILIES if asked.only in name]
        ckpt = Family("joint, one process", folder / "ckpt").whole if {*chosen} & {*ON_WEIGHTS} else None

        def soak(name: str) -> Tally:
            before = time.monotonic()
            family = Family(name, folder / str(chosen.index(name)), ckpt if name in ON_WEIGHTS else None, asked.seed)
            tally = family.soak(asked.kills)
            print(f"{name}: {tally} ({time.monotonic() - before:.0f} s)", flush=True)
            return tally

        with ThreadPoolExecutor(asked.jobs) as pool:
            tallies = list(pool.map(soak, chosen))
    total, wrong = sum(tally.kills for tally in tallies), sum(len(tally.wrong) for tally in tallies)
    print(f"{total} kills, {wrong} faults, {(time.monotonic() - start) / 60:.1f} minutes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
