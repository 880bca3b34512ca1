"""The README's chart of methods on CIFAR-10, from the results on record: kNN beside random weights and raw pixels.

    python -m benchmarks.method_chart docs/methods_cifar10.svg

Drawn are the runs with one and the same network, the small convnet of `experiment=cifar10_cpu`; docs/results.md has the
commands and caveats. Colours are readable on white and on dark ground.
"""

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "cifar10_cpu"
NAMES = {
    "barlow_twins": "Barlow Twins", "byol": "BYOL", "colorization": "Colourisation", "cpc": "CPC", "dcl": "DCL",
    "deepcluster_v2": "DeepCluster v2", "densecl": "DenseCL", "jigsaw": "Jigsaw", "lejepa": "LeJEPA", "moco": "MoCo v2",
    "moco_v1": "MoCo v1", "moco_v3": "MoCo v3", "nnclr": "NNCLR", "relative_position": "Relative position",
    "ressl": "ReSSL", "rotation": "Rotation", "simclr": "SimCLR", "simsiam": "SimSiam",
    "supcon": "SupCon (with labels)",
    "swav": "SwAV", "tico": "TiCo", "vicreg": "VICReg", "wmse": "W-MSE",
}  # fmt: skip
GREY, BAR, LABELLED, RANDOM, PIXELS = "#7d8590", "#2f6fb5", "#8f9bab", "#c2570c", "#1a936a"
LEFT, WIDTH, ROW, TOP, LOW, HIGH = 150, 470, 21, 62, 0, 70


def found() -> tuple[list[tuple[str, float]], float, float]:
    """(name, kNN in %) best first, of the methods that share SimCLR's network; random weights; raw pixels."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    random, pixels = (runs["simclr"]["baselines"][name]["knn_top1"] for name in ("random_init", "raw_pixels"))
    same = {k: r for k, r in runs.items() if k in NAMES and r["baselines"]["random_init"]["knn_top1"] == random}
    rows = sorted(((NAMES[name], percent(run["knn_top1"])) for name, run in same.items()), key=lambda row: -row[1])
    return rows, percent(random), percent(pixels)


def percent(share: float) -> float:
    """A share in %, to a tenth, halves up: 0.5085 is 50.9, whatever it is as a binary number."""
    return int(1000 * share + 0.5 + 1e-9) / 10


def at(percent: float) -> float:
    return LEFT + WIDTH * (percent - LOW) / (HIGH - LOW)


def chart() -> str:
    rows, random, pixels = found()
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {bottom + 34}" '
        f'width="{LEFT + WIDTH + 60}" height="{bottom + 34}" font-family="system-ui, sans-serif" font-size="12.5" '
        'role="img" aria-label="kNN accuracy on CIFAR-10 of methods after eight minutes on two CPU cores">',
        f'<text x="{LEFT}" y="18" fill="{GREY}" font-size="14" font-weight="600">'
        "CIFAR-10, 8 minutes on two CPU cores: kNN top-1, %</text>",
    ]
    for place, text, color, anchor in (
        (random, f"random weights {random:.1f}", RANDOM, "end"),
        (pixels, f"raw pixels {pixels:.1f}", PIXELS, "start"),
    ):
        x = at(place)
        shift = -6 if anchor == "end" else 6
        parts.append(f'<text x="{x + shift:.1f}" y="42" fill="{color}" text-anchor="{anchor}">{text}</text>')
    for i, (name, percent) in enumerate(rows):
        y = TOP + ROW * i
        color = LABELLED if "labels" in name else BAR
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" fill="{GREY}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{at(percent) - LEFT:.1f}" height="14" rx="3" fill="{color}"/>')
        parts.append(f'<text x="{at(percent) + 6:.1f}" y="{y + 11}" fill="{GREY}">{percent:.1f}</text>')
    for place, color in ((random, RANDOM), (pixels, PIXELS)):
        x = at(place)
        line = f'x1="{x:.1f}" x2="{x:.1f}" y1="34" y2="{bottom}"'
        parts.append(f'<line {line} stroke="{color}" stroke-width="1.6" stroke-dasharray="5 3"/>')
    for tick in range(LOW, HIGH + 1, 10):
        parts.append(f'<text x="{at(tick):.1f}" y="{bottom + 20}" fill="{GREY}" text-anchor="middle">{tick}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.parse_args().out.write_text(chart())


if __name__ == "__main__":
    main()
