"""The ten outlines of the `shapes` data, each as a signed distance: negative inside, positive outside, in units of the
figure's radius (all ten fit a circle of about radius 1 around the origin; y points up).

Round figures have a closed form; the others are polygons, measured by one function. Distances use only additions,
products, divisions and square roots, which IEEE arithmetic rounds exactly: a pixel comes out the same in any batch.
"""

import math
from collections.abc import Callable

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
    x = x + 0.12  # the cut leaves the weight on the left: move the figure to the middle
    outer = (x * x + y * y).sqrt() - 0.95
    bite = ((x - 0.55) * (x - 0.55) + y * y).sqrt() - 0.72
    return torch.maximum(outer, -bite)


def polygon(corners: list[tuple[float, float]]) -> Outline:
    """Signed distance to a simple polygon: the nearest edge's distance, with the sign from the even-odd rule."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        nearest = torch.full_like(x, math.inf)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
            ex, ey = bx - ax, by - ay
            px, py = x - ax, y - ay
            along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0)
            dx, dy = px - along * ex, py - along * ey
            nearest = torch.minimum(nearest, dx * dx + dy * dy)
            if ey != 0:  # a ray to the right crosses this edge
                inside ^= ((y >= ay) != (y >= by)) & (px < py * (ex / ey))
        return torch.where(inside, -nearest.sqrt(), nearest.sqrt())

    return distance


def _around(radii: list[float], start: float = 90.0) -> list[tuple[float, float]]:
    """Corners at equal angles (degrees, counter-clockwise from `start`) and the given radii."""
    step = 360.0 / len(radii)
    angles = [math.radians(start + step * i) for i in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles)]


def _heart(points: int = 28) -> list[tuple[float, float]]:
    """The heart curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t (mathworld.wolfram.com/HeartCurve.html)."""
    turn = [2 * math.pi * i / points for i in range(points)]
    return [
        (16 * math.sin(t) ** 3 / 16.5, (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 16.5)
        for t in turn
    ]


_ARM = 0.3
_CROSS = [
    (_ARM, 0.95), (-_ARM, 0.95), (-_ARM, _ARM), (-0.95, _ARM), (-0.95, -_ARM), (-_ARM, -_ARM),
    (-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM),
]  # fmt: skip
_ARROW = [(0.0, 1.0), (-0.8, 0.1), (-0.28, 0.1), (-0.28, -0.95), (0.28, -0.95), (0.28, 0.1), (0.8, 0.1)]
_HOURGLASS = [(0.75, 0.85), (-0.75, 0.85), (-0.12, 0.0), (-0.75, -0.85), (0.75, -0.85), (0.12, 0.0)]

# The order is the label: OUTLINES' position i is class i.
OUTLINES: dict[str, Outline] = {
    "disc": disc,
    "ring": ring,
    "square": polygon([(0.72, 0.72), (-0.72, 0.72), (-0.72, -0.72), (0.72, -0.72)]),
    "triangle": polygon(_around([1.0] * 3)),
    "star": polygon(_around([1.0, 0.42] * 5)),
    "cross": polygon(_CROSS),
    "crescent": crescent,
    "heart": polygon(_heart()),
    "arrow": polygon(_ARROW),
    "hourglass": polygon(_HOURGLASS),
}
