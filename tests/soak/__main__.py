"""`make soak`: random kills of every family of runs, each led to its end and compared with an uninterrupted one."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.drive import FAMILIES, JUDGE, Family


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="per family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of the families to take")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; otherwise they are thrown away")
    asked = parser.parse_args()
    start, total, wrong = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        ckpt = None
        for i, name in enumerate(FAMILIES):
            if asked.only not in name:
                continue
            if FAMILIES[name][1] in JUDGE.values():
                ckpt = ckpt or Family("joint, one process", folder / "ckpt").whole
            before = time.monotonic()
            tally = Family(name, folder / str(i), ckpt if FAMILIES[name][1] in JUDGE.values() else None, asked.seed).soak(
                asked.kills
            )
            print(f"{name}: {tally} ({time.monotonic() - before:.0f} s)", flush=True)
            total, wrong = total + tally.kills, wrong + len(tally.wrong)
    print(f"{total} kills, {wrong} of their ends wrong, {(time.monotonic() - start) / 60:.1f} minutes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
