"""The engines against each other, and the views as a pure function of (seed, epoch, index, view)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as F

from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import augment_one
from ssl_lightning.modalities.image.views import DeviceViews, EvalView, LocalView, View, Views, WorkerCrops, WorkerViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG: dict[str, Any] = {
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "blur_p": 0.5,
    "solarize_p": 0.2,
}
CONF = Path(__file__).parents[3] / "conf" / "views"


def multicrop(size: int = 32, **more: Any) -> Views:
    strong = {**STRONG, **more}
    return Views(View(size, count=2, **strong), local=LocalView(size, count=3, scale=(0.05, 0.14), **strong))


def images(count: int, height: int = 32, width: int = 32) -> Tensor:
    """Smooth pictures: neighbouring pixels are alike, as in photographs."""
    coarse = torch.rand(count, 3, 5, 5)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (x * 255).round().byte().permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "size", "smallest"), [(32, 32, 32, 10**9), (48, 40, 36, 10**9), (48, 40, 36, 1)]
)
def test_device_equals_torchvision_per_sample(
    height: int, width: int, size: int, smallest: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch's views are the reference's to 5e-5 after normalisation, a 90th of one of 256 levels."""
    monkeypatch.setattr(augment_one, "SMALLEST", smallest)  # pixels from which images are coloured one by one
    x, indices, views = images(60, height, width), torch.randint(0, 10**6, (60,)), multicrop(size, interpolation=mode)
    batched = DeviceViews(views, MEAN, STD, 11)(x, indices, 3)
    worker = WorkerViews(views, MEAN, STD, 11)
    each = [worker(image, int(index), 3) for image, index in zip(x, indices, strict=True)]
    for place, view in enumerate(views.list()):
        assert batched[place].shape == (60, 3, view.size, view.size)
        assert batched[place].dtype == torch.float32
        torch.testing.assert_close(batched[place], torch.stack([e[place] for e in each]), rtol=0, atol=5e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_crops_of_the_worker_with_colours_of_the_device(mode: str) -> None:
    """The same views up to the rounding of the crop to 8 bits: one level at most where no colour work magnifies it."""
    x, indices = images(60, 50, 40) // 2 + 64, torch.arange(60)  # so that no overshoot is cut off between the axes
    bare: dict[str, Any] = {"jitter_p": 0, "grayscale_p": 0, "interpolation": mode}
    plain, strong = Views(View(32, count=2, **bare), local=LocalView(32, **bare)), multicrop(interpolation=mode)
    most = 1.01 if mode == "bilinear" else 1.25  # uint8 is rounded after either axis, and the cubic magnifies the first
    for views, largest, average in ((plain, most / 255, 0.4 / 255), (strong, 1.0, 1.0 / 255)):
        worker = WorkerCrops(views, 5)
        each = [worker(image, int(index), 9) for image, index in zip(x, indices, strict=True)]
        assert all(c.dtype == torch.uint8 and c.is_contiguous() for c in each[0])
        device = DeviceViews(views, (0, 0, 0), (1, 1, 1), 5)
        for got, expected in zip(
            device([torch.stack(c) for c in zip(*each, strict=True)], indices, 9), device(x, indices, 9)
        ):
            difference = (got - expected).abs()
            assert float(difference.max()) <= largest
            assert float(difference.mean()) <= average


def test_images_of_any_size_in_one_batch() -> None:
    sizes = [(32, 32), (200, 31), (17, 90), (375, 500), (1, 1)]
    worker = WorkerCrops(multicrop(), 0)
    each = [worker(images(1, h, w)[0], i, 0) for i, (h, w) in enumerate(sizes)]
    batches = [torch.stack(c) for c in zip(*each, strict=True)]
    out = DeviceViews(multicrop(), MEAN, STD, 0)(batches, torch.arange(len(sizes)), 0)
    assert [tuple(view.shape[2:]) for view in out] == [(32, 32)] * 2 + [(14, 14)] * 3
    assert all(bool(view.isfinite().all()) for view in out)


def test_pure_function_of_seed_epoch_index_view() -> None:
    """Bitwise the same in any batch, order or chunk (300 images are more than one chunk)."""
    x, indices, views = images(300), torch.arange(300) + 1000, DeviceViews(multicrop(), MEAN, STD, 1)
    whole = views(x, indices, 4)
    order = torch.randperm(300)
    for parts in ([order], order.split(77), order[:9].split(1)):
        for part in parts:
            for got, expected in zip(views(x[part], indices[part], 4), whole, strict=True):
                assert torch.equal(got, expected[part])
    for other in (
        DeviceViews(multicrop(), MEAN, STD, 2)(x, indices, 4),
        views(x, indices, 5),
        views(x, indices + 1, 4),
    ):
        assert all(float((a - b).abs().mean()) > 0.1 for a, b in zip(other, whole, strict=True))
    assert float((whole[0] - whole[1]).abs().mean()) > 0.1


def test_large_images_on_a_cpu_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a batch to float32's rounding, and bitwise the same in any batch and by any number of threads."""
    x, indices, views = images(12, 112, 112), torch.arange(12), Views(View(112, count=2, **STRONG))
    device, threads = DeviceViews(views, MEAN, STD, 1), torch.get_num_threads()
    alone, used = device(x, indices, 0), []
    work = augment_one._colour
    monkeypatch.setattr(
        augment_one,
        "_colour",
        lambda *args: (used.append(torch.get_num_threads()), work(*args)),  # type: ignore[func-returns-value]
    )
    try:
        torch.set_num_threads(3)
        for mode in (torch.no_grad(), torch.inference_mode()):
            used.clear()
            with mode:
                many = device(x, indices, 0)
            assert all(torch.equal(got, expected) for got, expected in zip(many, alone, strict=True))
        assert torch.get_num_threads() == 3
        assert used == [1] * 24  # each thread works alone
    finally:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        pair = device(x[5:7], indices[5:7], 0)
    for got, expected in zip(pair, alone, strict=True):
        assert torch.equal(got, expected[5:7])
    monkeypatch.setattr(augment_one, "SMALLEST", 10**9)
    used.clear()
    for got, expected in zip(device(x, indices, 0), alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert not used


def test_the_accelerators_path_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, indices, views = images(40), torch.arange(40), DeviceViews(multicrop(), MEAN, STD, 1)
    expected = views(x, indices, 0)
    monkeypatch.setattr("ssl_lightning.modalities.image.augment._can_sort", lambda x: False)
    for got, wanted in zip(views(x, indices, 0), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_everything_stays_on_an_accelerator() -> None:
    """Fake CUDA tensors refuse to meet a CPU tensor, and to tell the host a value (which would stop it)."""
    with FakeTensorMode():
        x = torch.empty(300, 32, 32, 3, dtype=torch.uint8, device="cuda")
        indices = torch.empty(300, dtype=torch.int64, device="cuda")
        for view in DeviceViews(multicrop(), MEAN, STD, 0)(x, indices, 0):
            assert view.device.type == "cuda"
        assert EvalView(32, MEAN, STD).normalize(x).device.type == "cuda"


def test_channels_last_and_the_images_untouched() -> None:
    x = images(8)
    before = x.clone()
    for view in DeviceViews(multicrop(), MEAN, STD, 0)(x, torch.arange(8), 0):
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert EvalView(32, MEAN, STD).normalize(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


def test_float32_inside_autocast() -> None:
    x, views = images(8), DeviceViews(multicrop(), MEAN, STD, 0)
    expected = views(x, torch.arange(8), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = views(x, torch.arange(8), 0)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (60, 97), (90, 41), (32, 50), (20, 33)])
def test_eval_view_equals_torchvision(height: int, width: int) -> None:
    image = images(1, height, width)[0]
    chw = image.permute(2, 0, 1).contiguous()
    expected = F.center_crop(F.resize(chw, [32], antialias=True), [32, 32])
    got = EvalView(32, MEAN, STD).crop(image)
    assert got.dtype == torch.uint8
    assert got.shape == (32, 32, 3)
    # The two memory layouts have kernels of their own, which may round differently by one level.
    assert int((got.permute(2, 0, 1).int() - expected.int()).abs().max()) <= 1
    normalised = F.normalize(got.permute(2, 0, 1).float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(EvalView(32, MEAN, STD).normalize(got[None])[0], normalised, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (60, 97), (32, 32)])
def test_eval_view_may_resize_to_more_than_it_crops(height: int, width: int) -> None:
    """The protocol of the published tables: 256, then 224 from the middle."""
    image = images(1, height, width)[0]
    chw = image.permute(2, 0, 1).contiguous()
    expected = F.center_crop(F.resize(chw, [37], antialias=True), [32, 32])
    got = EvalView(32, MEAN, STD, resize=37).crop(image)
    assert int((got.permute(2, 0, 1).int() - expected.int()).abs().max()) <= 1
    with pytest.raises(UserError, match=r"data\.eval_resize=30 is smaller than data\.image_size=32"):
        EvalView(32, MEAN, STD, resize=30)


def test_bicubic_is_another_picture_in_every_engine_and_other_filters_are_refused() -> None:
    x, indices = images(4, 50, 40), torch.arange(4)
    one, two = (multicrop(interpolation=mode, jitter_p=0.0, grayscale_p=0.0) for mode in ("bilinear", "bicubic"))
    for engine in (DeviceViews, WorkerViews):
        first, second = (engine(views, MEAN, STD, 5) for views in (one, two))
        given = (x, indices) if engine is DeviceViews else (x[0], 0)
        assert not torch.equal(first(*given, 0)[0], second(*given, 0)[0])
    assert not torch.equal(WorkerCrops(one, 5)(x[0], 0, 0)[0], WorkerCrops(two, 5)(x[0], 0, 0)[0])
    with pytest.raises(UserError, match="interpolation=lanczos is unknown; use bilinear or bicubic"):
        View(32, interpolation="lanczos")  # type: ignore[arg-type]


def test_eval_view_leaves_the_right_size_alone() -> None:
    image = images(1)[0]
    assert torch.equal(EvalView(32, MEAN, STD).crop(image), image)


def test_wrong_inputs_are_named() -> None:
    views = DeviceViews(multicrop(), MEAN, STD, 0)
    with pytest.raises(UserError, match="uint8"):
        views(torch.rand(2, 32, 32, 3), torch.arange(2), 0)
    with pytest.raises(UserError, match="uint8"):
        views(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(2), 0)
    with pytest.raises(UserError, match="2 cropped batches for 5 views"):
        views([images(2), images(2)], torch.arange(2), 0)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("sym", [64] * 2),
        ("weak", [64] * 2),
        ("asym", [64] * 2),
        ("cpu_short", [64] * 2),
        ("shapes", [64] * 2),
        ("multicrop", [64] * 2 + [28] * 6),
        ("byol", [64] * 2),
        ("moco_v1", [64] * 2),
        ("ressl", [64] * 2),
        ("vicreg", [64] * 2),
        ("wmse", [64] * 2),
        ("xray", [64] * 2),
        ("microscopy", [64] * 2),
        ("satellite", [64] * 2),
        ("grayscale", [64] * 2),
        ("crop", [64]),
        ("ijepa", [64]),
        ("simmim", [64]),
        ("data2vec", [64]),
        ("dino", [64] * 2 + [28] * 8),
        ("dinov2", [64] * 2 + [28] * 8),
        ("ibot", [64] * 2 + [28] * 10),
        ("msn", [64] * 2 + [28] * 10),
    ],
)
def test_configs_build_their_views(name: str, sizes: list[int]) -> None:
    config = compose(["data=folder", "data.root=photos", "data.image_size=64", f"views={name}"])
    views = instantiate(config.values["views"])
    assert isinstance(views, Views)
    assert [view.size for view in views.list()] == sizes
    assert len(DeviceViews(views, MEAN, STD, 0)(images(4, 64, 64), torch.arange(4), 0)) == len(sizes)


@pytest.mark.parametrize(
    ("size", "patch", "local"), [(224, 16, 96), (224, 14, 98), (96, 16, 48), (96, 8, 40), (32, 4, 12), (32, 16, 16)]
)
@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2", "msn", "multicrop"])
def test_a_vits_patches_divide_the_small_views(name: str, size: int, patch: int, local: int) -> None:
    vit = ["backbone=vit_tiny", f"backbone.patch_size={patch}"]
    config = compose(["data=folder", "data.root=photos", f"data.image_size={size}", f"views={name}", *vit])
    assert instantiate(config.values["views"]).list()[-1].size == local


@pytest.mark.parametrize(("size", "multiple", "said"), [(32, 32, "no smaller than the global"), (32, 0, "multiple=0")])
def test_small_views_are_small(size: int, multiple: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        LocalView(size, multiple=multiple)


def test_every_config_is_tested() -> None:
    tested = {"sym", "weak", "asym", "cpu_short", "shapes", "multicrop", "byol", "moco_v1", "ressl", "vicreg", "wmse"}
    tested |= {"crop", "dino", "dinov2", "ibot", "msn", "data2vec", "ijepa", "simmim"}
    tested |= {"xray", "microscopy", "satellite", "grayscale"}
    assert {
        path.stem for path in CONF.glob("*.yaml") if "ssl_lightning.modalities.audio." not in path.read_text()
    } == tested
