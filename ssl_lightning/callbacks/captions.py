"""Words around a grid of pictures: a title, what each row is, and of which class each item is."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, SOFT, PAPER = (27, 35, 48), (91, 102, 117), (255, 255, 255)
TITLE, CLASS, MARGIN = 34, 22, 12  # px: height of the title, of the line of classes, white at the edges
LETTER = 14  # px of a letter's height


def captioned(grid: Tensor, title: str, rows: Sequence[str], columns: Sequence[str], gap: int = 2) -> Tensor:
    """A grid of equal cells uint8 (H, W, 3), `gap` px between them -> the same with words around it.

    The grid begins `corner(rows)` px from the left and the top.

    Args:
        rows: a name for each row of cells.
        columns: a name for each column, "" where there is none to tell.
    """
    left, top = corner(rows)
    high, wide = grid.shape[0], grid.shape[1]
    title_wide = int(font(LETTER + 3).getlength(title)) + 2 * MARGIN
    canvas = Image.new("RGB", (max(left + wide + MARGIN, title_wide), top + high + MARGIN), PAPER)
    canvas.paste(Image.fromarray(grid.numpy()), (left, top))
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN - 2), title, INK, font(LETTER + 3))
    cell_high, cell_wide = (high + gap) / max(len(rows), 1), (wide + gap) / max(len(columns), 1)
    for i, name in enumerate(rows):
        pen.text((left - 8, top + cell_high * (i + 0.5) - gap / 2), name, SOFT, font(LETTER), anchor="rm")
    for i, name in enumerate(columns):
        words = fitting(name, cell_wide - 6)
        pen.text((left + cell_wide * (i + 0.5) - gap / 2, top - CLASS / 2), words, INK, font(LETTER), anchor="mm")
    return torch.from_numpy(np.array(canvas))


def corner(rows: Sequence[str]) -> tuple[int, int]:
    """Where the grid begins: (px from the left, px from the top)."""
    return MARGIN + 8 + int(max((font(LETTER).getlength(name) for name in rows), default=0)), TITLE + CLASS


def fitting(words: str, width: float) -> str:
    """Words cut to a width in px."""
    while len(words) > 2 and font(LETTER).getlength(words) > width:
        words = f"{words[:-2].rstrip('…')}…"
    return words


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, in this size."""
    return ImageFont.load_default(size)
