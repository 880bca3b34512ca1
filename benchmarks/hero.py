"""The picture at the top of the README, from a finished run on `shapes`: its views, a map of its features, neighbours.

    python -m ssl_lightning
    python -m benchmarks.hero runs/simclr-shapes docs/hero.png

The map is t-SNE (scikit-learn, the extra `maps`) of 1,500 test images, an image at each place of a grid that one lies
near to, framed in the colour of its class; no label was used. Neighbours are the nearest by cosine among these
images; the queries are the first image of some classes.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from ssl_lightning import load_backbone
from ssl_lightning.cli.compose import compose
from ssl_lightning.modalities.image.sources.shapes import CLASSES, drawn_once
from ssl_lightning.modalities.image.views import DeviceViews, View, Views

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ITEMS, NEAREST, SEED = 1500, 6, 0
GRID = (26, 18)  # places of the map
QUERIES = ("star", "heart", "crescent", "arrow", "cross")
SIZE, MEAN, STD = 32, 0.5, 0.25  # of the demo's images
FIRST = 40  # the training image that the views begin with
INK, SOFT, RIGHT, WRONG = "#1f2937", "#6b7280", "#16815d", "#c2570c"
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8b6914", "#7a4fbf", "#475569", "#a3a516")


def features(run: Path, images: torch.Tensor) -> torch.Tensor:
    """Images uint8 (N, H, W, 3) -> unit features (N, D)."""
    backbone = load_backbone(run)
    x = (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    with torch.no_grad():
        return normalize(torch.cat([backbone(part) for part in x.split(250)]), dim=1)


def draw_views(area: Any, rows: int = 5) -> None:
    """The two views of the demo's first images, as its first epoch draws them."""
    settings = compose(["data=shapes"]).values["views"]["global_1"]
    view = View(**{key: value for key, value in settings.items() if key != "_target_"})
    images, indices = drawn_once(20_000, SIZE, 0, "train")[FIRST : FIRST + rows], torch.arange(FIRST, FIRST + rows)
    drawn = DeviceViews(Views(view), [MEAN] * 3, [STD] * 3, seed=0)(images, indices, epoch=0)
    for row in range(rows):
        for column, x in enumerate(drawn):
            picture = (x[row] * STD + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()
            area.imshow(
                picture, extent=(11 * column, 11 * column + 10, 11 * row + 10, 11 * row), interpolation="nearest"
            )
    area.set_xlim(-0.5, 21.5)
    area.set_ylim(11 * rows - 0.5, -0.5)


def draw_map(area: Any, x: torch.Tensor, images: torch.Tensor, labels: np.ndarray) -> None:
    """An image at each place of a grid that some image lies near to, framed in the colour of its class."""
    places = layout(x)
    low, high = places.min(0), places.max(0)
    cells = (places - low) / (high - low) * np.array(GRID)
    for column in range(GRID[0]):
        for row in range(GRID[1]):
            away = np.abs(cells - (column + 0.5, row + 0.5)).max(1)
            item = int(away.argmin())
            if away[item] > 0.6:
                continue
            where = (column, column + 1, row, row + 1)
            area.imshow(images[item].numpy(), extent=where, interpolation="nearest", origin="upper")
            edge = COLORS[labels[item]]
            area.add_patch(
                plt.Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor=edge, linewidth=1.8)
            )
    area.set_xlim(-0.1, GRID[0] + 0.1)
    area.set_ylim(-0.1, GRID[1] + 0.1)


def layout(x: torch.Tensor) -> np.ndarray:
    from sklearn.manifold import TSNE

    found = TSNE(init="pca", perplexity=30, random_state=SEED, metric="cosine").fit_transform((x - x.mean(0)).numpy())
    return np.asarray(found)


def draw_neighbours(area: Any, x: torch.Tensor, images: torch.Tensor, labels: np.ndarray) -> None:
    side = 10
    for row, name in enumerate(QUERIES):
        query = int(np.flatnonzero(labels == CLASSES.index(name))[0])
        order = (x @ x[query]).argsort(descending=True)[: NEAREST + 1]
        for column, item in enumerate(order.tolist()):
            left = column * (side + 1) + (4 if column else 0)
            top = row * (side + 1)
            area.imshow(images[item].numpy(), extent=(left, left + side, top + side, top), interpolation="nearest")
            color = INK if not column else RIGHT if labels[item] == labels[query] else WRONG
            area.add_patch(plt.Rectangle((left, top), side, side, fill=False, edgecolor=color, linewidth=2.2))
    area.set_xlim(-0.5, (NEAREST + 1) * (side + 1) + 4)
    area.set_ylim(len(QUERIES) * (side + 1) - 0.5, -0.5)


def panel(figure: Any, left: float, width: float, title: str, under: str) -> Any:
    area = figure.add_axes((left, 0.12, width, 0.74))
    area.set_xticks([])
    area.set_yticks([])
    area.spines[:].set_visible(False)
    figure.text(left + width / 2, 0.92, title, fontsize=15, fontweight="bold", color=INK, ha="center")
    figure.text(left + width / 2, 0.035, under, fontsize=10.5, color=SOFT, ha="center")
    return area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run of the demo")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    images = drawn_once(4000, SIZE, 0, "test")[:ITEMS]
    labels = np.arange(ITEMS) % len(CLASSES)
    x = features(asked.run, images)
    figure = plt.figure(figsize=(14, 5.2))
    draw_views(panel(figure, 0.015, 0.13, "Two views of each", "both show the same image"))
    draw_map(
        panel(
            figure,
            0.175,
            0.42,
            "A map of what it learned",
            "similar images lie together; frame colours are classes it never saw",
        ),
        x,
        images,
        labels,
    )
    under = "query, then the six nearest of 1,500: green where the class is the same"
    draw_neighbours(panel(figure, 0.61, 0.38, "Nearest neighbours", under), x, images, labels)
    figure.savefig(asked.out, dpi=110, facecolor="white")
    Image.open(asked.out).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(asked.out, optimize=True)


if __name__ == "__main__":
    main()
