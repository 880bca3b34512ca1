"""The ten outlines of the `shapes` data, each as a signed distance: negative inside, positive outside, in units of the
figure's radius (all ten fit a circle of radius REACH around the origin; y points up).

Round figures have a closed form; the others are polygons, measured by one function. Distances use only additions,
products, divisions and square roots, which IEEE arithmetic rounds exactly: a pixel comes out the same in any batch.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]


def disc(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a filled circle."""
    return (x * x + y * y).sqrt() - 0.85


def ring(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a circle with a wide hole."""
    return ((x * x + y * y).sqrt() - 0.72).abs() - 0.22


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a disc out of which a second, shifted one is cut."""
    x = x - 0.25  # the cut leaves the weight on the left: move the figure to the middle
    outer = (x * x + y * y).sqrt() - 0.88
    bite = ((x - 0.52) * (x - 0.52) + y * y).sqrt() - 0.66
    return torch.maximum(outer, -bite)


def mirrored(half: list[tuple[float, float]]) -> Outline:
    """Signed distance to the polygon whose right half is the chain `half`, from the y axis to the y axis.

    The distance is that of the nearest edge, the sign comes from the even-odd rule; |x| folds the left half onto it.
    """

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x = x.abs()
        nearest = torch.full_like(x, math.inf)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in pairwise(half):
            ex, ey = bx - ax, by - ay
            px, py = x - ax, y - ay
            length = ex * ex + ey * ey
            along = (px * (ex / length) + py * (ey / length)).clamp_(0.0, 1.0)
            if ey != 0:  # a ray to the right crosses this edge
                inside ^= ((y >= ay) != (y >= by)) & (px < py * (ex / ey))
            px -= along * ex
            py -= along * ey
            nearest = torch.minimum(nearest, px.square_() + py.square_())
        nearest.sqrt_()
        return torch.where(inside, -nearest, nearest)

    return distance


def _star(points: int = 5, notch: float = 0.42) -> list[tuple[float, float]]:
    """Tips at radius 1 and notches in between, from the top tip to the bottom notch."""
    turns = [math.pi * i / points for i in range(points + 1)]  # clockwise from the top
    return [((notch if i % 2 else 1) * math.sin(t), (notch if i % 2 else 1) * math.cos(t)) for i, t in enumerate(turns)]


def _heart(edges: int = 14) -> list[tuple[float, float]]:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t (mathworld.wolfram.com/HeartCurve.html)."""
    corners = []
    for i in range(edges + 1):
        t = math.pi * i / edges
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((16 * math.sin(t) ** 3 / 17, (height + 1) / 17))
    return corners


_SQUARE = [(0.0, 0.72), (0.72, 0.72), (0.72, -0.72), (0.0, -0.72)]
_TRIANGLE = [(0.0, 1.0), (0.866, -0.5), (0.0, -0.5)]
_CROSS = [(0.0, 0.95), (0.3, 0.95), (0.3, 0.3), (0.95, 0.3), (0.95, -0.3), (0.3, -0.3), (0.3, -0.95), (0.0, -0.95)]
_ARROW = [(0.0, 1.0), (0.8, 0.1), (0.28, 0.1), (0.28, -0.95), (0.0, -0.95)]
_HOURGLASS = [(0.0, 0.78), (0.7, 0.78), (0.12, 0.0), (0.7, -0.78), (0.0, -0.78)]

REACH = 1.07  # no figure goes further from its centre, in radii

# The order is the label: OUTLINES' position i is class i.
OUTLINES: dict[str, Outline] = {
    "disc": disc,
    "ring": ring,
    "square": mirrored(_SQUARE),
    "triangle": mirrored(_TRIANGLE),
    "star": mirrored(_star()),
    "cross": mirrored(_CROSS),
    "crescent": crescent,
    "heart": mirrored(_heart()),
    "arrow": mirrored(_ARROW),
    "hourglass": mirrored(_HOURGLASS),
}
