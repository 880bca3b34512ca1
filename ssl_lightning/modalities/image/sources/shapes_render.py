"""Draws the images of the `shapes` data: figures of one of ten classes on a ground, under many nuisance factors.

An image is a pure function of (seed, split, index): every number comes from the counter-based generator of
`core/counter.py`, so image i is the same whatever else is drawn with it, and at any resolution it shows the same scene
(all lengths are fractions of the image's side; only the pixel noise belongs to the pixels).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.sources.shapes_outlines import OUTLINES, REACH

CLASSES = list(OUTLINES)
VERSION = 3  # raise it whenever the drawing changes: caches made by an older one are then remade
SPLITS = ("train", "test")
TEXTURES = ("plain", "gradient", "stripes", "checks", "noise")
MAX_CLUTTER = 4
LATTICE = 5  # the value noise is interpolated from LATTICE x LATTICE random numbers

# Ranges of the nuisance factors (lengths are fractions of the side, angles degrees, colours in [0, 1]).
RADIUS = (0.17, 0.27)
# Further figures of the same class, each with its own place, size, turn and colour: two crops of one image then share
# the class and little else, which a contrastive method has to find out, while pixels line up with nothing.
COMPANIONS = 2
ROTATION = 25.0
CONTRAST = (0.35, 0.6)
CHROMA = 0.05
GROUND_TEXTURE = (0.0, 0.08)
FIGURE_TEXTURE = (0.0, 0.08)
CLUTTER_LENGTH = 0.16
CLUTTER_WIDTH = (0.012, 0.03)
CLUTTER_CONTRAST = 0.3
NOISE = (0.0, 0.06)


@dataclass
class Rendered:
    """N drawn images with all that is known about them."""

    images: Tensor  # (N, H, W, 3) uint8
    labels: Tensor  # (N,) int64, an index into CLASSES
    boxes: Tensor  # (N, 4) float32: x0, y0, x1, y1 in pixels, x1 and y1 exclusive, tight around the mask
    masks: Tensor  # (N, H, W) bool, True where the figure covers the pixel's centre
    factors: dict[str, Tensor]  # (N, ...) each, see `scene`
    instances: Tensor  # (N, 1 + COMPANIONS, H, W) bool: what is seen of each figure, the one in front first
    whole: Tensor  # (N, 1 + COMPANIONS) int64: how many pixels each would have with nothing before it


def render(indices: Tensor, image_size: int = 32, seed: int = 0, split: str = "train") -> Rendered:
    """Draw the images `indices` (N,) of a split; the result for an index depends on nothing but the arguments.

    >>> drawn = render(torch.arange(4), image_size=32)
    >>> drawn.images.shape, [CLASSES[label] for label in drawn.labels]
    (torch.Size([4, 32, 32, 3]), ['disc', 'ring', 'square', 'triangle'])
    """
    if split not in SPLITS:
        raise UserError(f"shapes has no split '{split}'; choose one of {', '.join(SPLITS)}")
    if image_size < 16:
        raise UserError(f"shapes at {image_size} px cannot be told apart; take data.image_size=16 or more")
    factors = scene(indices, seed, split)
    images = torch.empty(len(indices), image_size, image_size, 3, dtype=torch.uint8)
    instances = torch.empty(len(indices), 1 + COMPANIONS, image_size, image_size, dtype=torch.bool)
    whole = torch.empty(len(indices), 1 + COMPANIONS, dtype=torch.int64)
    chunk = max(1, 131072 // image_size**2)  # planes of 512 KB: the working set stays in the cache
    for start in range(0, len(indices), chunk):
        part = slice(start, start + chunk)
        drawn = {name: values[part] for name, values in factors.items()}
        colour, figures = _draw(drawn, image_size)
        grain = uniform(seed, 0, indices[part], _stream(split, 1), 3 * image_size**2)
        colour += (grain.view_as(colour) - 0.5) * (2 * drawn["noise"].view(-1, 1, 1, 1))
        images[part] = (colour * 255 + 0.5).clamp_(0, 255).byte().permute(0, 2, 3, 1)
        whole[part] = figures.flatten(2).sum(2)
        before = figures.cumsum(1) - figures.long()  # how many figures lie over each pixel of this one
        instances[part] = figures & (before == 0)
    masks = instances[:, 0]
    return Rendered(images, factors["label"], tight_boxes(masks), masks, factors, instances, whole)


def scene(indices: Tensor, seed: int, split: str) -> dict[str, Tensor]:
    """The factors of each image, float32 unless said: what `render` draws and all that tells two images apart.

    label (N,) int64; centre (N, 2) x and y in [0, 1], y down; radius (N,); rotation (N,) radians, counter-clockwise;
    ground_colour, figure_colour (N, 3); {ground,figure}_texture (N,) int64 into TEXTURES, its _strength (N,) in colour
    units and its _pattern (N, 4 + LATTICE^2) (turn, phases, frequency, lattice); clutter (N, MAX_CLUTTER, 5): ends
    x0, y0, x1, y1 and half width, 0 where there is none; clutter_colour (N, MAX_CLUTTER, 3); noise (N,) amplitude;
    companion_{centre,radius,rotation,colour} (N, COMPANIONS, ...) of the figures behind the main one, which box, mask
    and the factors without a prefix belong to.
    """
    draw = _Draws(uniform(seed, 0, indices, _stream(split, 0), 160))
    n = len(indices)
    figures = 1 + COMPANIONS
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * draw.many(figures)  # (N, 1 + COMPANIONS)
    margin = (REACH * radius)[:, :, None]  # each whole figure lies inside the image
    centre = margin + (1 - 2 * margin) * draw.many(2 * figures).view(n, figures, 2)
    rotation = (2 * draw.many(figures) - 1) * math.radians(ROTATION)
    # lightness: ground and figure differ by a set contrast, either of them the lighter
    contrast, above = draw.between(*CONTRAST), draw.one() < 0.5
    lower = 0.1 + draw.one() * (0.8 - contrast)
    upper = lower + contrast
    ground, figure = torch.where(above, lower, upper), torch.where(above, upper, lower)
    factors = {
        "label": indices % len(CLASSES),  # every run of ten images holds each class once
        "centre": centre[:, 0],
        "radius": radius[:, 0],
        "rotation": rotation[:, 0],
        "companion_centre": centre[:, 1:],
        "companion_radius": radius[:, 1:],
        "companion_rotation": rotation[:, 1:],
        "ground_colour": _tint(ground, draw),
        "figure_colour": _tint(figure, draw),
    }
    for part, strength in (("ground", GROUND_TEXTURE), ("figure", FIGURE_TEXTURE)):
        factors[f"{part}_texture"] = (draw.one() * len(TEXTURES)).long()
        factors[f"{part}_strength"] = draw.between(*strength)
        factors[f"{part}_pattern"] = draw.many(4 + LATTICE**2)
    ends = draw.many(2 * MAX_CLUTTER).view(n, MAX_CLUTTER, 2)
    reach = (draw.many(2 * MAX_CLUTTER).view(n, MAX_CLUTTER, 2) * 2 - 1) * CLUTTER_LENGTH
    width = CLUTTER_WIDTH[0] + draw.many(MAX_CLUTTER) * (CLUTTER_WIDTH[1] - CLUTTER_WIDTH[0])
    there = torch.arange(MAX_CLUTTER) < (draw.one() * (MAX_CLUTTER + 1)).long()[:, None]
    factors["clutter"] = torch.cat([ends, ends + reach, (width * there)[:, :, None]], 2)
    shift = (draw.many(MAX_CLUTTER) * 2 - 1) * CLUTTER_CONTRAST
    factors["clutter_colour"] = (factors["ground_colour"][:, None] + shift[:, :, None]).clamp(0, 1)
    # a companion is lighter or darker than the ground, as there is room for
    shift = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * draw.many(COMPANIONS)
    shift = torch.where(draw.many(COMPANIONS) < 0.5, shift, -shift)
    shift = torch.where(((ground[:, None] + shift) - 0.5).abs() > 0.5, -shift, shift)
    factors["companion_colour"] = (factors["ground_colour"][:, None] + shift[:, :, None]).clamp(0, 1)
    factors["noise"] = draw.between(*NOISE)
    return factors


def _stream(split: str, use: int) -> int:
    """Train and test draw from streams of their own: no index of one is ever an image of the other."""
    return 1000 + 10 * SPLITS.index(split) + use


class _Draws:
    """Hands out the columns of a table of uniform numbers (N, columns), one factor after the other."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.next = table, 0

    def many(self, n: int) -> Tensor:
        self.next += n
        assert self.next <= self.table.shape[1], "scene() draws more numbers than its table holds"
        return self.table[:, self.next - n : self.next]

    def one(self) -> Tensor:
        return self.many(1)[:, 0]

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * self.one()


def _tint(lightness: Tensor, draw: _Draws) -> Tensor:
    """A colour (N, 3) of this lightness (N,), with a random hue and a random chroma up to CHROMA."""
    hue, chroma = draw.one().double() * (2 * math.pi), draw.one() * CHROMA
    waves = torch.stack([torch.cos(hue - third * 2 * math.pi / 3) for third in range(3)], 1).float()
    return (lightness[:, None] + chroma[:, None] * waves).clamp(0, 1)


def _draw(drawn: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Colours (B, 3, H, W) without noise, and what each figure covers (B, 1 + COMPANIONS, H, W), of a few scenes."""
    b = len(drawn["label"])
    place = (torch.arange(size) + 0.5) / size  # the pixels' centres
    x, y = place.view(1, 1, size).expand(b, size, size), place.view(1, size, 1).expand(b, size, size)
    ground = _column(drawn["ground_colour"]) + _texture(drawn, "ground", x, y)[:, None]
    for i in range(MAX_CLUTTER):
        cover = _cover(_segment(drawn["clutter"][:, i], x, y), size)
        cover = cover * (drawn["clutter"][:, i, 4] > 0).view(-1, 1, 1)
        ground = _over(ground, _column(drawn["clutter_colour"][:, i]), cover)
    covered: list[Tensor] = []  # the last is painted last, and lies before the others
    for i in range(COMPANIONS):
        companion = {name: drawn[f"companion_{name}"][:, i] for name in ("centre", "radius", "rotation", "colour")}
        distance, _, _ = _figure(companion | {"label": drawn["label"]}, x, y)
        ground = _over(ground, _column(companion["colour"]), _cover(distance, size))
        covered.insert(0, distance < 0)
    distance, u, v = _figure(drawn, x, y)
    figure = _column(drawn["figure_colour"]) + _texture(drawn, "figure", u, v)[:, None]
    return _over(ground, figure, _cover(distance, size)), torch.stack([distance < 0, *covered], 1)


def _figure(drawn: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The figure's signed distance (B, H, W) in fractions of the side, and coordinates that turn with it."""
    turn = drawn["rotation"].double()
    cos, sin = (f(turn).float().view(-1, 1, 1) for f in (torch.cos, torch.sin))
    radius = drawn["radius"].view(-1, 1, 1)
    right = (x - drawn["centre"][:, 0].view(-1, 1, 1)) / radius
    up = (drawn["centre"][:, 1].view(-1, 1, 1) - y) / radius
    u, v = cos * right + sin * up, cos * up - sin * right  # (B, H, W) in radii
    distance = torch.empty_like(u)
    for label, outline in enumerate(OUTLINES.values()):
        rows = (drawn["label"] == label).nonzero()[:, 0]
        if len(rows):
            distance[rows] = outline(u[rows], v[rows])
    return distance * radius, u * radius + 0.5, v * radius + 0.5


def _texture(drawn: dict[str, Tensor], part: str, x: Tensor, y: Tensor) -> Tensor:
    """The change of lightness (B, H, W), within +- strength, that a part's texture adds to its colour."""
    kinds, pattern = drawn[f"{part}_texture"], drawn[f"{part}_pattern"]
    out = torch.zeros_like(x)
    for kind, name in enumerate(TEXTURES):
        rows = (kinds == kind).nonzero()[:, 0]
        if len(rows) and name != "plain":
            out[rows] = _pattern(name, pattern[rows], x[rows], y[rows])
    return out * drawn[f"{part}_strength"].view(-1, 1, 1)


def _pattern(name: str, pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One kind of texture, values in [-1, 1] (B, H, W); `pattern` (B, 4 + LATTICE^2) in [0, 1) says which."""
    if name == "noise":
        return _value_noise(pattern[:, 4:].reshape(-1, LATTICE, LATTICE), x, y)
    turn = pattern[:, 0].double() * (2 * math.pi)
    cos, sin = (f(turn).float().view(-1, 1, 1) for f in (torch.cos, torch.sin))
    along, across = cos * x + sin * y, cos * y - sin * x
    if name == "gradient":
        return (along - (cos + sin) / 2).clamp(-1, 1)
    phase_1, phase_2 = pattern[:, 1].view(-1, 1, 1), pattern[:, 2].view(-1, 1, 1)
    frequency = 3 + 4 * pattern[:, 3].view(-1, 1, 1)  # waves per side: four pixels or more each at 32 px
    stripes = _wave(along * frequency + phase_1)
    return stripes if name == "stripes" else stripes * _wave(across * frequency + phase_2)


def _wave(t: Tensor) -> Tensor:
    """A wave of period 1 between -1 and 1: a triangle, steepened and cut so that the edges stay soft."""
    return (((t - t.floor() - 0.5).abs() - 0.25) * 8).clamp(-1, 1)


def _value_noise(lattice: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear interpolation of the lattice (B, L, L) at x, y (B, H, W): smooth blotches in [-1, 1]."""
    last = lattice.shape[1] - 1
    values = lattice * 2 - 1
    out = torch.zeros_like(x)
    hats_x = [(1 - (x * last - i).abs()).clamp(min=0) for i in range(last + 1)]
    for j in range(last + 1):
        line = torch.zeros_like(x)
        for i, hat in enumerate(hats_x):
            line += hat * values[:, j, i].view(-1, 1, 1)
        out += line * (1 - (y * last - j).abs()).clamp(min=0)
    return out


def _segment(ends: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance (B, H, W) to thick lines (B, 5): x0, y0, x1, y1 and half width."""
    x0, y0, x1, y1, width = (ends[:, i].view(-1, 1, 1) for i in range(5))
    ex, ey, px, py = x1 - x0, y1 - y0, x - x0, y - y0
    along = ((px * ex + py * ey) / (ex * ex + ey * ey + 1e-6)).clamp(0, 1)
    dx, dy = px - along * ex, py - along * ey
    return (dx * dx + dy * dy).sqrt() - width


def _cover(distance: Tensor, size: int) -> Tensor:
    """How much of a pixel lies inside: a ramp one pixel wide over the edge (antialiasing)."""
    return (0.5 - distance * size).clamp(0, 1)


def _over(below: Tensor, above: Tensor, cover: Tensor) -> Tensor:
    """Paint colours (B, 3, ...) over others where `cover` (B, H, W) says so."""
    return below + (above - below) * cover[:, None]


def _column(colour: Tensor) -> Tensor:
    """(B, 3) -> (B, 3, 1, 1)"""
    return colour[:, :, None, None]


def tight_boxes(masks: Tensor) -> Tensor:
    """The tight boxes (N, 4) x0, y0, x1, y1 of masks (N, H, W); of one without a pixel the whole image's."""
    size = masks.shape[-1]
    columns, lines = masks.any(1).byte(), masks.any(2).byte()
    ends = [columns.argmax(1), lines.argmax(1), size - columns.flip(1).argmax(1), size - lines.flip(1).argmax(1)]
    return torch.stack(ends, 1).float()
