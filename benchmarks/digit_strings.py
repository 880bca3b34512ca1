"""Strings of spoken digits out of single ones, to try `task=transcribe` on: files and a table of what they say.

    python -m benchmarks.digit_strings fsdd/recordings strings --count 150

Single digits are `<digit>_<speaker>_<take>.wav`, mono, 16 bits, as FSDD has them. Each string is of one speaker: digits
and takes drawn from a seed, with 50 to 200 ms of silence between them.
"""

import argparse
import csv
import random
import wave
from collections import defaultdict
from pathlib import Path


def read(path: Path) -> tuple[bytes, int]:
    """(samples of 16 bits, sample rate)."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise SystemExit(f"error: {path} is not mono with 16 bits")
        return file.readframes(file.getnframes()), file.getframerate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=150, help="strings of each speaker")
    parser.add_argument("--digits", type=int, nargs=2, default=(2, 4), help="how many in a string, from and to")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    of: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(asked.recordings.glob("*_*_*.wav")):
        of[path.stem.split("_")[1]].append(path)
    if not of:
        raise SystemExit(f"error: {asked.recordings} has no files named <digit>_<speaker>_<take>.wav")
    asked.out.mkdir(parents=True)
    draw = random.Random(asked.seed)
    with open(asked.out / "strings.csv", "w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "text", "speaker"])
        for speaker, files in sorted(of.items()):
            for take in range(asked.count):
                chosen = [draw.choice(files) for _ in range(draw.randint(*asked.digits))]
                rate, samples = read(chosen[0])[1], b""
                for path in chosen:
                    samples += read(path)[0] + bytes(2 * round(draw.uniform(0.05, 0.2) * rate))
                name = f"{speaker}_{take:04}.wav"
                with wave.open(str(asked.out / name), "wb") as file:
                    file.setparams((1, 2, rate, 0, "NONE", ""))
                    file.writeframes(samples)
                rows.writerow([name, "".join(path.stem.split("_")[0] for path in chosen), speaker])
    print(f"{asked.count * len(of)} strings of {len(of)} speakers in {asked.out}")


if __name__ == "__main__":
    main()
