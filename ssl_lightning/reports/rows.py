"""What `report.npz` holds of single items, as rows for a table: a thumbnail, its class, what kNN says, the nearest."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ssl_lightning.reports.kept import Kept
from ssl_lightning.reports.thumbnails import ACROSS


def predictions(kept: Kept, most: int = 100) -> list[dict[str, Any]]:
    """Of some test items: `image` bytes (side, side, 3) or None, `class`, `knn`, `right`; wrong ones first.

    Empty where kNN was not asked.
    """
    labels, found, names = (
        kept.get("labels"),
        kept.get("found"),
        [str(name) for name in kept.about.get("classes") or ()],
    )
    if labels is None or found is None or not bool(((labels >= 0) & (found >= 0)).any()):
        return []
    asked = np.flatnonzero((labels >= 0) & (found >= 0))
    order = sorted(asked.tolist(), key=lambda row: bool(labels[row] == found[row]))[:most]
    pictures = thumbnails(kept)
    return [
        {
            "image": pictures[row] if row < len(pictures) else None,
            "class": _name(names, int(labels[row])),
            "knn": _name(names, int(found[row])),
            "right": bool(labels[row] == found[row]),
        }
        for row in order
    ]


def thumbnails(kept: Kept) -> list[np.ndarray]:
    """The pictures of the sheet, in the order of the items; none where items are not drawn."""
    data, side = kept.get("sheet"), int(kept.about.get("side") or 0)
    count = len(kept.arrays.get("indices", ()))
    if data is None or not side:
        return []
    canvas = np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGB"))
    corners = ((row // ACROSS * side, row % ACROSS * side) for row in range(count))
    return [canvas[top : top + side, left : left + side] for top, left in corners]


def _name(names: list[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
