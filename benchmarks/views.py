"""Two SimCLR views per image: our engines against torchvision's per-sample pipeline on PIL images, one thread each.

    python -m benchmarks.views

At 32 pixels the images lie decoded in memory. At 224 they are JPEG files of 500 x 375: ours decodes and crops them per
image, as a worker would, and does the colours in one batch on the device; PIL does all of it per image.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision import transforms

from ssl_lightning.modalities.image.images import decode
from ssl_lightning.modalities.image.views import DeviceViews, View, Views, WorkerCrops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 7
Work = Callable[[int], object]


class PILBlur(nn.Module):
    """SimCLR's blur as per-sample pipelines do it: PIL's filter, faster than torchvision's own on PIL images."""

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=float(torch.empty(1).uniform_(0.1, 2.0))))


def pil_pipeline(size: int) -> Callable[[Image.Image], Tensor]:
    """Through `torchvision.transforms`, which is faster on PIL images than its successor `transforms.v2`."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([PILBlur()], p=0.5),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def settings(size: int) -> Views:
    return Views(View(size, count=2, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur_p=0.5))


def seconds(work: Work, epoch: int) -> float:
    start = time.perf_counter()
    work(epoch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(title: str, baseline: tuple[str, Work, int], others: dict[str, tuple[Work, int]]) -> None:
    """Prints images per second of each work, given with its number of images, and its ratio to the baseline."""
    name, work, count = baseline
    rates: dict[str, list[float]] = {n: [] for n in (name, *others)}
    for epoch in range(ROUNDS + 1):
        for n, (w, c) in {name: (work, count), **others}.items():
            took = seconds(w, epoch)
            if epoch:  # the first round warms up (and compiles)
                rates[n].append(c / took)
    print(title)
    for n, rate in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rate, rates[name], strict=True))
        print(f"  {n:<46} {statistics.median(rate):>9,.0f} images/s   {ratio:.2f}x")


def photos(count: int, height: int, width: int) -> Tensor:
    """uint8 (count, height, width, 3): coarse colours with fine noise, so that the JPEG decoder has ordinary work."""
    coarse = torch.rand(count, 3, 8, 8) * 255
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 8 * torch.randn(smooth.shape)).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def at_32(device: torch.device) -> None:
    count, some = (8192 if device.type == "cuda" else 512), 64
    images, indices = photos(count, 32, 32).to(device), torch.arange(count, device=device)
    pictures, pipeline = [Image.fromarray(i) for i in images[:some].cpu().numpy()], pil_pipeline(32)
    views = DeviceViews(settings(32), MEAN, STD, 0)
    others: dict[str, tuple[Work, int]] = {f"ours, {device.type}, eager": (lambda e: views(images, indices, e), count)}
    if device.type == "cuda":
        compiled = DeviceViews(settings(32), MEAN, STD, 0)
        compiled.work = torch.compile(compiled.work)
        others["ours, cuda, compiled"] = (lambda e: compiled(images, indices, e), count)
    pil = ("PIL, per sample", lambda _: [pipeline(p) for p in pictures for _ in range(2)], some)
    compare("two views of 32 x 32 pixels from decoded images", pil, others)


def at_224(device: torch.device, folder: Path) -> None:
    count = 24
    files = [str(folder / f"{i}.jpg") for i in range(count)]
    for file, photo in zip(files, photos(count, 375, 500).numpy(), strict=True):
        Image.fromarray(photo).save(file, quality=90)
    pipeline, crops, views = pil_pipeline(224), WorkerCrops(settings(224), 0), DeviceViews(settings(224), MEAN, STD, 0)
    indices = torch.arange(count, device=device)

    def by_pil(_: int) -> None:
        for file in files:
            picture = Image.open(file).convert("RGB")
            torch.stack([pipeline(picture) for _ in range(2)])

    def cropped(epoch: int) -> list[Tensor]:
        each = [crops(decode(file), i, epoch) for i, file in enumerate(files)]
        return [torch.stack(view) for view in zip(*each, strict=True)]

    def both(epoch: int) -> None:
        views([x.to(device) for x in cropped(epoch)], indices, epoch)

    ready = [x.to(device) for x in cropped(0)]
    compare(
        "two views of 224 x 224 pixels from JPEG files",
        ("PIL, all per sample", by_pil, count),
        {
            f"ours: decode + crop per sample, colours on {device.type}": (both, count),
            "  its decode + crop alone (a worker's part)": (cropped, count),
            f"  its colours alone, {device.type}, eager": (lambda epoch: views(ready, indices, epoch), count),
        },
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    at_32(device)
    with TemporaryDirectory() as folder:
        at_224(device, Path(folder))


if __name__ == "__main__":
    main()
