"""The drawn images: a pure function of (seed, split, index), the same scene at any size, and a cache that heals."""

import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.sources import shapes
from ssl_lightning.modalities.image.sources.shapes import CLASSES, Shapes, drawn_once, render
from ssl_lightning.modalities.image.sources.shapes_outlines import OUTLINES, REACH, mirrored
from ssl_lightning.modalities.image.sources.shapes_render import MAX_CLUTTER, RADIUS, ROTATION, TEXTURES, scene


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ssl_lightning" / "shapes"


# ---- a pure function of (seed, split, index)


@pytest.mark.parametrize("size", [32, 33])
def test_an_image_does_not_depend_on_what_is_drawn_with_it(size: int) -> None:
    whole = render(torch.arange(300), size)  # more than one chunk
    shuffled = torch.randperm(300)[:61]
    some = render(shuffled, size)
    assert torch.equal(some.images, whole.images[shuffled])
    assert torch.equal(some.masks, whole.masks[shuffled])
    assert torch.equal(some.boxes, whole.boxes[shuffled])
    for i in (0, 127, 128, 299):
        alone = render(torch.tensor([i]), size)
        assert torch.equal(alone.images[0], whole.images[i])
        assert {name: v.tolist() for name, v in alone.factors.items()} == {
            name: v[i : i + 1].tolist() for name, v in whole.factors.items()
        }


def test_far_indices_and_threads_change_nothing() -> None:
    rows = torch.tensor([3, 10**9, 7])
    before = render(rows).images
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    after = render(rows).images
    torch.set_num_threads(threads)
    assert torch.equal(before, after)


def test_seeds_splits_and_indices_give_different_images() -> None:
    rows = torch.arange(40)
    sets = [render(rows), render(rows, seed=1), render(rows, split="test"), render(rows + 40)]
    pictures = {bytes(image.numpy().tobytes()) for drawn in sets for image in drawn.images}
    assert len(pictures) == 160
    # and not by their noise alone: no two scenes share a place and a size
    places = {
        tuple(p) for s in sets for p in torch.cat([s.factors["centre"], s.factors["radius"][:, None]], 1).tolist()
    }
    assert len(places) == 160


# ---- what is drawn


def test_labels_are_balanced_and_name_the_outline() -> None:
    drawn = render(torch.arange(25))
    assert drawn.labels.tolist() == [i % 10 for i in range(25)]
    assert drawn.images.shape == (25, 32, 32, 3)
    assert drawn.images.dtype == torch.uint8
    assert len(CLASSES) == 10


def test_the_scene_is_the_same_at_two_resolutions() -> None:
    rows = torch.arange(200)
    small, large = render(rows, 32), render(rows, 64)
    for name, values in small.factors.items():
        assert torch.equal(values, large.factors[name]), name
    shrunk = F.avg_pool2d(large.images.permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
    apart = (shrunk - small.images.float()).abs().mean((1, 2, 3))  # grey levels; noise and edges remain
    strangers = (shrunk - small.images.float().roll(1, 0)).abs().mean((1, 2, 3))
    noise = 255 * small.factors["noise"] * 0.6
    assert (apart < 8 + noise).all(), apart.max()
    assert apart.mean() < strangers.mean() / 5
    assert (large.boxes / 2 - small.boxes).abs().max() <= 1.5
    shrunk_mask = F.avg_pool2d(large.masks[:, None].float(), 2)[:, 0]
    assert (shrunk_mask - small.masks.float()).abs().mean() < 0.02


def test_boxes_are_tight_around_masks_and_inside_the_image() -> None:
    drawn = render(torch.arange(100), 40)
    for mask, box in zip(drawn.masks, drawn.boxes.tolist()):
        y, x = mask.nonzero(as_tuple=True)
        assert box == [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
    sides = (drawn.boxes[:, 2:] - drawn.boxes[:, :2]) / 40
    assert (sides.amax(1) <= 2 * REACH * drawn.factors["radius"] + 1 / 40).all()
    assert (sides.amax(1) >= drawn.factors["radius"]).all()


def test_pixels_show_the_colours_of_the_factors() -> None:
    drawn = render(torch.arange(300), 48)
    f = drawn.factors
    plain = (f["ground_texture"] == 0) & (f["figure_texture"] == 0) & (f["clutter"][:, :, 4] == 0).all(1)
    assert plain.any()
    for i in plain.nonzero()[:, 0].tolist():
        image, mask = drawn.images[i].double() / 255, drawn.masks[i]
        core = -F.max_pool2d(-mask[None].float(), 3, 1, 1)[0] > 0  # off the antialiased edge
        far = F.max_pool2d(mask[None].float(), 5, 1, 2)[0] == 0
        size = mask.shape[-1]
        place = torch.stack(torch.meshgrid(*2 * [(torch.arange(size) + 0.5) / size], indexing="xy"), -1)  # (H, W, 2)
        for centre, radius in zip(f["companion_centre"][i], f["companion_radius"][i]):
            far &= (place - centre).norm(dim=-1) > REACH * radius + 2 / size
        for region, colour in ((core, f["figure_colour"][i]), (far, f["ground_colour"][i])):
            tolerance = 3 * float(f["noise"][i]) / math.sqrt(int(region.sum())) + 0.004 + 0.1 * float(f["noise"][i])
            assert (image[region].mean(0) - colour).abs().max() < tolerance


def test_factors_fill_their_ranges() -> None:
    f = scene(torch.arange(4000), 0, "train")
    for values, (low, high) in (
        (f["radius"], RADIUS),
        (f["rotation"], (-math.radians(ROTATION), math.radians(ROTATION))),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    reach = REACH * f["radius"][:, None]
    assert ((f["centre"] - reach > -1e-6) & (f["centre"] + reach < 1 + 1e-6)).all()  # never cut off
    for name in ("ground_texture", "figure_texture"):
        counts = torch.bincount(f[name], minlength=len(TEXTURES))
        assert (counts - 4000 / len(TEXTURES)).abs().max() < 5 * math.sqrt(4000 / len(TEXTURES))
    lines = (f["clutter"][:, :, 4] > 0).sum(1)
    assert sorted(set(lines.tolist())) == list(range(MAX_CLUTTER + 1))
    for name in ("ground_colour", "figure_colour", "clutter_colour"):
        assert f[name].min() >= 0
        assert f[name].max() <= 1


def test_no_factor_tells_the_class() -> None:
    """The mean of every factor is the same in each class, within what chance allows."""
    f = scene(torch.arange(6000), 0, "train")
    label = f.pop("label")
    for name, values in f.items():
        flat = values.double().flatten(1) if values.ndim > 1 else values.double()[:, None]
        spread = flat.std(0).clamp(min=1e-9)
        for c in range(10):
            z = (flat[label == c].mean(0) - flat.mean(0)) / spread * math.sqrt(600)
            assert z.abs().max() < 5, (name, c)


# ---- outlines


def naive_polygon(corners: list[tuple[float, float]], x: float, y: float) -> float:
    """Distance by dense sampling of the edges, sign by the winding number."""
    nearest, winding = math.inf, 0.0
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        for k in range(2001):
            t = k / 2000
            nearest = min(nearest, math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)))
        turn = math.atan2(by - y, bx - x) - math.atan2(ay - y, ax - x)
        winding += (turn + math.pi) % (2 * math.pi) - math.pi
    return -nearest if abs(winding) > math.pi else nearest


def test_polygon_distance_equals_a_naive_one() -> None:
    half = [(0.0, 0.6), (0.3, 1.0), (0.2, 0.3), (0.9, 0.1), (0.6, -0.9), (0.3, -0.2), (0.0, -0.5)]
    corners = half + [(-x, y) for x, y in half[-2:0:-1]]
    points = torch.rand(60, 2, dtype=torch.float64) * 2.4 - 1.2
    got = mirrored(half)(points[:, 0], points[:, 1])
    want = torch.tensor([naive_polygon(corners, x, y) for x, y in points.tolist()])
    assert (want < 0).sum() >= 10
    torch.testing.assert_close(got, want.double(), atol=1e-3, rtol=0)


def grid(n: int = 201) -> tuple[Tensor, Tensor]:
    place = torch.linspace(-1.5, 1.5, n, dtype=torch.float64)
    return place.expand(n, n), place.flip(0)[:, None].expand(n, n)


@pytest.mark.parametrize("name", CLASSES)
def test_outlines_fit_the_unit_circle_and_measure_distance(name: str) -> None:
    x, y = grid()
    d = OUTLINES[name](x, y)
    inside = d < 0
    reach = (x * x + y * y).sqrt()[inside]
    assert 0.8 < reach.max() < REACH
    assert 0.08 < inside.double().mean() * 9 / math.pi < 0.8  # share of the circle
    centre = torch.stack([x[inside].mean(), y[inside].mean()])
    assert centre.norm() < 0.2
    step = 3 / 200
    slope = torch.maximum((d[:, 1:] - d[:, :-1]).abs().max(), (d[1:] - d[:-1]).abs().max()) / step
    assert slope < 1 + 1e-6  # a distance grows by at most what one walks: nothing is antialiased too sharply


def test_outlines_differ_under_any_rotation() -> None:
    """No outline turned about its centre covers another: overlap (intersection over union) stays under 0.85."""
    x, y = grid(121)
    masks = {name: outline(x, y) < 0 for name, outline in OUTLINES.items()}
    for name, outline in OUTLINES.items():
        for degrees in range(0, 360, 15):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            turned = outline(c * x + s * y, c * y - s * x) < 0
            for other, mask in masks.items():
                if other != name:
                    overlap = (turned & mask).sum() / (turned | mask).sum()
                    assert overlap < 0.85, (name, other, degrees)


# ---- the source and its cache


def test_the_source_holds_what_render_draws(own_cache: Path) -> None:
    data = Shapes(size=30, test_size=20, image_size=16, seed=5)
    train, test = data.train_set, data.test_set
    assert isinstance(train, ArrayImages)
    assert isinstance(test, ArrayImages)
    assert torch.equal(train.images, render(torch.arange(30), 16).images)
    assert torch.equal(test.images, render(torch.arange(20), 16, split="test").images)
    assert data.classes == CLASSES
    assert train.labels.tolist() == [i % 10 for i in range(30)]
    assert data.has_labels


def test_the_second_time_comes_from_the_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn_once(12, 16, 0, "train").clone()
    monkeypatch.setattr(shapes, "render", None)  # drawing again would fail
    assert torch.equal(drawn_once(12, 16, 0, "train"), first)
    assert len(list(own_cache.iterdir())) == 1


def test_every_parameter_has_a_file_of_its_own(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ((12, 16, 0, "train"), (13, 16, 0, "train"), (12, 17, 0, "train"), (12, 16, 1, "train")):
        drawn_once(*arguments)
    drawn_once(12, 16, 0, "test")
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    drawn_once(12, 16, 0, "train")
    assert len(list(own_cache.iterdir())) == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped bit", "no array", "other shape"])
def test_a_damaged_cache_is_made_anew(own_cache: Path, damage: str) -> None:
    good = drawn_once(12, 16, 0, "train").clone()
    (file,) = own_cache.iterdir()
    whole = bytearray(file.read_bytes())
    if damage == "flipped bit":
        whole[700] ^= 1
    wrong: Any = {"cut": whole[:5000], "empty": b"", "no array": b"x" * 9000, "flipped bit": whole}
    if damage == "other shape":
        drawn_once(11, 16, 0, "train")
        file.write_bytes(next(f for f in own_cache.iterdir() if f != file).read_bytes())
    else:
        file.write_bytes(bytes(wrong[damage]))
    assert torch.equal(drawn_once(12, 16, 0, "train"), good)
    assert shapes._read(file, (12, 16, 16, 3)) is not None  # and it is whole again


def test_an_unwritable_cache_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images = drawn_once(12, 16, 0, "train")
    assert torch.equal(images, render(torch.arange(12), 16).images)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be kept" in said


def test_a_full_disk_leaves_nothing_behind(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zlib, "crc32", full)
    assert len(drawn_once(12, 16, 0, "train")) == 12
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"image_size": 8}, "16 or more"), ({"split": "val"}, "train, test")],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        render(torch.arange(2), **arguments)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.size"):
        Shapes(size=0)
