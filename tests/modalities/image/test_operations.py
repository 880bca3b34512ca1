"""The further operations of a view, each against a naive reference for one image in float64, and their draws."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_lightning.__main__ import main
from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import augment, operation
from ssl_lightning.modalities.image.operations import (
    ChannelDropout,
    Cutout,
    Elastic,
    Gamma,
    Operation,
    RightAngle,
    Rotate,
    StainJitter,
    VerticalFlip,
)
from ssl_lightning.modalities.image.views import DeviceViews, EvalView, LocalView, View, Views, WorkerCrops, WorkerViews

N = 4000
Image = NDArray[np.float64]  # (C, h, w)
EVERY: tuple[Operation, ...] = (
    VerticalFlip(),
    RightAngle(),
    Rotate(degrees=50),
    Elastic(alpha=12, sigma=2),
    Cutout(),
    StainJitter(sigma=0.2),
    Gamma(),
    ChannelDropout(p=0.5),
)
IDS = [type(op).__name__ for op in EVERY]


def pictures(count: int = 24, channels: int = 3, side: int = 12) -> Tensor:
    return torch.rand(count, channels, side, side)


def bytes_of(count: int, channels: int = 3, side: int = 20) -> Tensor:
    return torch.randint(0, 256, (count, side, side, channels), dtype=torch.uint8)


def bilinear(image: Image, down: float, across: float, edges: str) -> NDArray[np.float64]:
    """The value at a place in pixels, the first pixel's middle at 0."""
    (_, h, w), found = image.shape, np.zeros(len(image))
    if edges == "reflection":  # at the outer sides of the border pixels
        down, across = (_mirrored(at, n) for at, n in ((down, h), (across, w)))
    top, left = math.floor(down), math.floor(across)
    for i in (top, top + 1):
        for j in (left, left + 1):
            weight = (1 - abs(down - i)) * (1 - abs(across - j))
            if edges == "reflection":
                found += weight * image[:, min(max(i, 0), h - 1), min(max(j, 0), w - 1)]
            elif 0 <= i < h and 0 <= j < w:
                found += weight * image[:, i, j]
    return found


def _mirrored(at: float, n: int) -> float:
    at = (at + 0.5) % (2 * n)
    return min(at, 2 * n - at) - 0.5


def moved(image: Image, place: Any, edges: str) -> Image:
    _, h, w = image.shape
    out = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            out[:, i, j] = bilinear(image, *place(i, j), edges)
    return out


def rotated(op: Rotate, image: Image, u: list[float]) -> Image:
    angle, (_, h, w) = math.radians((2 * u[0] - 1) * op.degrees), image.shape

    def place(i: int, j: int) -> tuple[float, float]:
        y, x = i - (h - 1) / 2, j - (w - 1) / 2
        return (
            x * math.sin(angle) + y * math.cos(angle) + (h - 1) / 2,
            x * math.cos(angle) - y * math.sin(angle) + (w - 1) / 2,
        )

    return moved(image, place, op.edges)


def smooth_field(op: Elastic, u: list[float], h: int, w: int) -> Image:
    """Simard's: even moves, convolved with a Gaussian (the image mirrored at its border pixels), times alpha."""
    keys = [int(value * 2**24) for value in u]
    raw = uniform(0, 0, torch.tensor([keys[0] * 2**24 + keys[1]]), operation.STREAM, 2 * h * w)[0].double()
    moves = (2 * raw - 1).view(2, h, w).numpy()
    reach = min(math.ceil(4 * op.sigma), min(h, w) - 1)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / op.sigma) ** 2)
    padded = np.pad(moves, ((0, 0), (reach, reach), (reach, reach)), "reflect")
    out = np.zeros_like(moves)
    for a, weight_a in enumerate(taps / taps.sum()):
        for b, weight_b in enumerate(taps / taps.sum()):
            out += weight_a * weight_b * padded[:, a : a + h, b : b + w]
    return out * op.alpha


def warped(op: Elastic, image: Image, u: list[float]) -> Image:
    field = smooth_field(op, u, *image.shape[1:])
    return moved(image, lambda i, j: (i + field[0, i, j], j + field[1, i, j]), op.edges)


def turned(op: RightAngle, image: Image, u: list[float]) -> Image:
    return np.rot90(image, 1 + int(u[0] * 3), (1, 2))


def holed(op: Cutout, image: Image, u: list[float]) -> Image:
    _, h, w = image.shape
    half = math.sqrt((op.area[0] + (op.area[1] - op.area[0]) * u[0]) * h * w) / 2
    out = image.copy()
    for i in range(h):
        for j in range(w):
            if abs(i + 0.5 - u[1] * h) < half and abs(j + 0.5 - u[2] * w) < half:
                out[:, i, j] = image.mean((1, 2))
    return out


def restained(op: StainJitter, image: Image, u: list[float]) -> Image:
    """Tellez et al. 2018: the colour deconvolution of Ruifrok and Johnston, alpha and beta for each stain, and back."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    stains = stains / np.sqrt((stains**2).sum(1, keepdims=True))
    if len(image) != 3:
        return image
    alpha = [1 + (2 * value - 1) * op.sigma for value in u[:3]]
    beta = [(2 * value - 1) * op.bias for value in u[3:]]
    out = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            amounts = np.linalg.solve(stains.T, -np.log(np.maximum(image[:, i, j], 1e-6)))
            amounts = np.array([a * amount + b for a, amount, b in zip(alpha, amounts, beta, strict=True)])
            out[:, i, j] = np.exp(-(stains.T @ amounts))
    return out.clip(0, 1)


def powered(op: Gamma, image: Image, u: list[float]) -> Image:
    low, high = op.gamma
    return image ** (low * (high / low) ** u[0])


def dropped(op: ChannelDropout, image: Image, u: list[float]) -> Image:
    out = image.copy()
    if len(out) > 1:
        out[int(u[0] * len(out))] = 0
    return out


NAIVE: dict[str, Any] = {
    "VerticalFlip": lambda op, image, u: image[:, ::-1],
    "RightAngle": turned,
    "Rotate": rotated,
    "Elastic": warped,
    "Cutout": holed,
    "StainJitter": restained,
    "Gamma": powered,
    "ChannelDropout": dropped,
}


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("op", [*EVERY, Rotate(degrees=180, edges="zeros"), Elastic(alpha=60, sigma=2, edges="zeros")])
def test_an_operation_equals_a_naive_one_for_each_image(op: Operation, channels: int) -> None:
    x, u = pictures(6, channels), torch.rand(6, op.numbers)
    x[0], x[1] = 0.0, 1.0  # black and white
    got = op.apply(x.clone(), u)
    for image, numbers, found in zip(x.double().numpy(), u.tolist(), got, strict=True):
        wanted = torch.tensor(NAIVE[type(op).__name__](op, image, numbers).copy())
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-5)
    assert got.dtype == torch.float32
    assert float(got.min()) >= 0
    assert float(got.max()) <= 1


def test_what_torchvision_has_too() -> None:
    x = pictures(1)
    assert torch.equal(VerticalFlip().apply(x, torch.zeros(1, 0)), F.vertical_flip(x))
    for u in (0.1, 0.5, 0.93):
        angle = (2 * u - 1) * 70
        got = Rotate(degrees=70, edges="zeros").apply(x, torch.tensor([[u]]))
        torch.testing.assert_close(got, F.rotate(x, angle, F.InterpolationMode.BILINEAR), rtol=0, atol=2e-5)
        got = Gamma(gamma=(0.5, 2.0)).apply(x, torch.tensor([[u]]))
        torch.testing.assert_close(got, F.adjust_gamma(x, 0.5 * 4**u), rtol=0, atol=1e-6)
    op, u2 = Elastic(alpha=30, sigma=2, edges="zeros"), torch.rand(1, 2)
    moves = op.field(u2, 12, 12).flip(1).permute(0, 2, 3, 1) / 6  # (1, h, w, 2), across first, an image from -1 to 1
    got, wanted = op.apply(x, u2), F.elastic(x, moves, F.InterpolationMode.BILINEAR)
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


# ---- the draws ------------------------------------------------------------------------------------------------------


def is_even(values: Tensor) -> bool:
    """Kolmogorov-Smirnov for an even distribution in [0, 1): False once in 10,000."""
    values = values.double().flatten().sort().values
    steps = torch.arange(1, len(values) + 1).double() / len(values)
    distance = torch.maximum((values - steps).abs(), (values - steps + 1 / len(values)).abs()).max()
    return float(distance) < math.sqrt(-math.log(0.5e-4) / 2 / len(values))


def drawn(op: Operation, epoch: int = 1) -> Tensor:
    """Those that do it, of N images: (n, numbers)."""
    (u,) = operation.draw([op], 0, 3, epoch, torch.arange(N))
    chosen = u[:, 0] < op.p
    assert abs(float(chosen.double().mean()) - op.p) <= 4 * math.sqrt(op.p * (1 - op.p) / N)
    return u[chosen, 1:]


def chi_square(counts: Tensor) -> float:
    expected = float(counts.sum()) / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_statistic_can_fail() -> None:
    assert is_even(torch.rand(N))
    assert not is_even(torch.rand(N) ** 1.25)


def test_turns_and_channels_come_as_often() -> None:
    corner = torch.zeros(1, 1, 2, 2)
    corner[0, 0, 0, 0] = 1
    u = drawn(RightAngle())
    ends = RightAngle().apply(corner.expand(len(u), -1, -1, -1), u).flatten(1).argmax(1)
    counts = ends.bincount(minlength=4)
    assert counts[0] == 0
    assert chi_square(counts[1:].double()) < 18.4  # 2 degrees of freedom: exceeded once in 10,000
    u = drawn(ChannelDropout(p=0.4))
    gone = ChannelDropout().apply(torch.ones(len(u), 5, 1, 1), u)[:, :, 0, 0].argmin(1)
    assert chi_square(gone.bincount(minlength=5).double()) < 23.5  # 4 degrees of freedom


def test_sizes_are_even() -> None:
    u = drawn(op := Gamma(p=0.7, gamma=(0.5, 2.0)))
    powers = op.apply(torch.full((len(u), 1, 1, 1), 0.5), u).log().flatten() / math.log(0.5)
    assert is_even((powers.log() / math.log(2) + 1) / 2)
    ramp = torch.linspace(0, 1, 9).expand(1, 1, 9, 9)
    u = drawn(rotate := Rotate(p=0.7, degrees=40))
    out = rotate.apply(ramp.expand(len(u), -1, -1, -1), u)
    slope = torch.atan2(out[:, 0, 5, 4] - out[:, 0, 3, 4], out[:, 0, 4, 5] - out[:, 0, 4, 3])
    assert is_even(slope / math.radians(80) + 0.5)
    u = drawn(hole := Cutout(p=0.7, area=(0.04, 0.2)))
    half = torch.cat([torch.zeros(1, 1, 64, 32), torch.ones(1, 1, 64, 32)], 3)
    cut = (hole.apply(half.expand(len(u), -1, -1, -1), u) == 0.5).double()[:, 0]  # (n, 64, 64)
    tall, wide = cut.amax(2).sum(1), cut.amax(1).sum(1)
    whole = cut[:, [0, -1]].sum((1, 2)) + cut[:, :, [0, -1]].sum((1, 2)) == 0  # not cut off at the border
    assert abs(float((tall * wide)[whole].mean()) / 64**2 - 0.11) < 0.02
    assert is_even(u[:, 1])
    assert is_even(u[:, 2])
    u = drawn(stain := StainJitter(p=0.7, sigma=0.2, bias=0.0))
    row = torch.tensor([0.65, 0.70, 0.29])
    pure = torch.exp(-row / row.norm()).view(1, 3, 1, 1)
    density = -stain.apply(pure.expand(len(u), -1, -1, -1), u).log()[:, :, 0, 0].norm(dim=1)
    assert is_even((-density - 0.8) / 0.4)


def test_an_elastic_field_has_simards_moments() -> None:
    """Of an even move in [-1, 1] the variance is 1/3; the blur leaves 1 / (4 pi sigma^2) of it."""
    op = Elastic(p=1.0, alpha=34, sigma=4)
    moves = op.field(drawn(op)[:60], 64, 64)[:, :, 12:-12, 12:-12]
    assert abs(float(moves.mean())) < 0.05
    assert float(moves.std()) == pytest.approx(34 * math.sqrt(1 / 3 / (4 * math.pi * 16)), rel=0.03)


def test_operations_views_and_epochs_draw_apart() -> None:
    two, indices = [Gamma(), Gamma()], torch.arange(N)
    rows = [
        u[:, k].double()
        for place, epoch in ((0, 0), (1, 0), (0, 1))
        for u in operation.draw(two, place, 0, epoch, indices)
        for k in (0, 1)
    ]
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(len(rows))
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(N)


# ---- in the engines -------------------------------------------------------------------------------------------------


def engines(channels: int, *ops: Operation) -> tuple[Views, tuple[float, ...], tuple[float, ...]]:
    view: dict[str, Any] = {"also": ops, "blur_p": 0.5, "solarize_p": 0.2}
    views = Views(View(16, count=2, **view), local=LocalView(16, part=0.5, scale=(0.1, 0.4), **view))
    return views, (0.4,) * channels, (0.25,) * channels


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("op", EVERY, ids=IDS)
def test_the_worker_gives_the_same(op: Operation, channels: int) -> None:
    given = engines(channels, op)
    x, indices = bytes_of(20, channels), torch.arange(20) * 7
    batched = DeviceViews(*given, 11)(x, indices, 1)
    worker = WorkerViews(*given, 11)
    each = [worker(image, int(index), 1) for image, index in zip(x, indices, strict=True)]
    for place, found in enumerate(batched):
        torch.testing.assert_close(found, torch.stack([e[place] for e in each]), rtol=0, atol=2e-4)
    plain = DeviceViews(*engines(channels), 11)(x, indices, 1)
    same = [torch.equal(a, b) for a, b in zip(batched, plain, strict=True)]
    untouched = {"ChannelDropout": channels == 1, "StainJitter": channels != 3}
    assert all(same) == untouched.get(type(op).__name__, False)


@pytest.mark.parametrize("channels", [3, 5])
def test_a_batch_equals_its_items_one_by_one(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = DeviceViews(*engines(channels, *EVERY), 1)
    x, indices = bytes_of(60, channels), torch.arange(60) + 1000
    whole = device(x, indices, 1)
    order = torch.randperm(60)
    for part in (*order.split(17), *order[:9].split(1)):
        for got, expected in zip(device(x[part], indices[part], 1), whole, strict=True):
            assert torch.equal(got, expected[part])
    assert not any(torch.equal(a, b) for a, b in zip(device(x, indices, 0), whole, strict=True))
    monkeypatch.setattr(augment, "_can_sort", lambda x: False)  # the accelerators' way
    for got, expected in zip(device(x, indices, 1), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_crops_of_workers_get_their_operations_from_the_device() -> None:
    given = engines(3, *EVERY[:5])
    x, indices = bytes_of(10) // 2 + 64, torch.arange(10)
    crops = [WorkerCrops(given[0], 5)(image, int(index), 1) for image, index in zip(x, indices, strict=True)]
    got = DeviceViews(*given, 5)([torch.stack(c) for c in zip(*crops, strict=True)], indices, 1)
    for a, b in zip(got, DeviceViews(*given, 5)(x, indices, 1), strict=True):
        assert float((a - b).abs().mean()) < 0.01 / 0.25


def test_large_images_go_one_by_one() -> None:
    views = Views(View(112, count=1, also=EVERY))
    x, indices = bytes_of(4, side=112), torch.arange(4)
    device = DeviceViews(views, (0.5,) * 3, (0.25,) * 3, 0)
    for alone, row in zip(device(x, indices, 1)[0], range(4), strict=True):
        assert torch.equal(alone, device(x[row : row + 1], indices[row : row + 1], 1)[0][0])


def test_without_operations_nothing_changes_and_evaluation_knows_none() -> None:
    x, indices = bytes_of(10), torch.arange(10)
    a, b = (DeviceViews(*engines(3, *ops), 0)(x, indices, 1) for ops in ((), (Gamma(p=0.0), VerticalFlip(p=0.0))))
    assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))
    view = EvalView(20, (0.0,) * 3, (1.0,) * 3)
    assert torch.equal((view.normalize(x) * 255).round().byte().permute(0, 2, 3, 1), x)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Gamma(p=1.5), "Gamma's p=1.5 is not a probability"),
        (lambda: Gamma(gamma=(2.0, 1.0)), "gamma=[2.0, 1.0] is not a range; give [low, high] above 0"),
        (lambda: Gamma(gamma=(0.0, 1.0)), "is not a range"),
        (lambda: Cutout(area=(0.1, 1.5)), "above 0 and to 1"),
        (lambda: Rotate(degrees=190), "degrees=190 is out of range; give 0 to 180"),
        (lambda: Rotate(edges="black"), "edges=black is unknown; use reflection or zeros"),  # type: ignore[arg-type]
        (lambda: Elastic(edges="black"), "Elastic's edges=black is unknown"),  # type: ignore[arg-type]
        (lambda: Elastic(sigma=0.0), "sigma=0.0 is out of range"),
        (lambda: StainJitter(sigma=2.0), "sigma=2.0 is out of range; give 0 to 1"),
        (lambda: StainJitter(bias=-1.0), "bias=-1.0 is out of range"),
        (lambda: View(16, also=(Gamma(),) * 33), "lists 33 operations; give at most 32"),
    ],
)
def test_bad_values_are_one_line(make: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


SIZES = {"data.size": 48, "data.test_size": 24, "data.batch_size": 16, "backbone.width": 4, "trainer.max_epochs": 1}
SIZES |= {"method.projector.hidden_dim": 8, "method.projector.out_dim": 8, "stage.judge": "false"}
SMALL = [f"{key}={value}" for key, value in SIZES.items()]
HOME = "ssl_lightning.modalities.image.operations"


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (f"[{{_target_:{HOME}.Gama}}]", "Did you mean 'Gamma'?"),
        (f"[{{_target_:{HOME}.Gamma,p:2}}]", "views.global_1.also.0.p=2 is out of range"),
        (f"[{{_target_:{HOME}.Rotate,angle:20}}]", "takes no argument 'angle'"),
        ("[{_target_:os.system,command:ls}]", "may not be named"),
        ("[VerticalFlip]", "wants a list of nodes with a _target_ (Operation)"),
        ("[{_target_:tests.modalities.image.test_operations.Negative}]", "trusted_packages"),
    ],
)
def test_a_list_on_the_command_line_that_cannot_be_right_is_one_line(
    listed: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, f"views.global_1.also={listed}", f"runs_dir={tmp_path}"]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert not list(tmp_path.iterdir())


class Negative(Operation):
    """An operation of a user's own."""

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        return 1 - x


def test_ones_own_operation_trains_where_it_is_trusted(tmp_path: Path) -> None:
    node = "[{_target_:tests.modalities.image.test_operations.Negative,p:1.0}]"
    words = [*SMALL, f"views.global_1.also={node}", "trusted_packages=[tests]", f"runs_dir={tmp_path}", "name=a"]
    assert main(words) == 0
    assert "Negative" in (tmp_path / "a" / "config.yaml").read_text()
