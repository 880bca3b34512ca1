"""Loading photographs: two SimCLR views of 224 x 224 pixels from JPEG files, by two workers, ready on the device.

    python -m benchmarks.photos

Ours decodes and crops in the workers and does the colours in the main process. The other two are the per-sample
pipelines of solo-learn (bicubic crops, the flip last) and lightly (bilinear, the flip first) with torchvision's
transforms on PIL images, in a plain DataLoader. All three take turns; of each the best round counts. Processor time is
that of all processes together: what a machine with other work to do can be compared by.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.views import MEAN, STD, PILBlur, photos, settings
from ssl_lightning.modalities.image.sources.folder import Folder

WORKERS, BATCH, COUNT, ROUNDS = 2, 16, 96, 3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Pass = Callable[[], Iterator[list[Tensor]]]


def _colours() -> list[nn.Module]:
    return [
        transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([PILBlur()], p=0.5),
    ]


def _solarize(image: Image.Image) -> Image.Image:
    return ImageOps.solarize(image)


def like_solo_learn() -> transforms.Compose:
    crop = transforms.RandomResizedCrop(224, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    last = [transforms.RandomApply([transforms.Lambda(_solarize)], p=0.0), transforms.RandomHorizontalFlip()]
    return transforms.Compose([crop, *_colours(), *last, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def like_lightly() -> transforms.Compose:
    first = [transforms.RandomResizedCrop(224, (0.08, 1.0)), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*first, *_colours(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


class Files(Dataset[list[Tensor]]):
    """Two views of each file, as a user's own dataset would give them."""

    def __init__(self, files: list[Path], transform: transforms.Compose):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        with open(self.files[index], "rb") as file:
            picture = Image.open(file).convert("RGB")
        return [self.transform(picture) for _ in range(2)]


def theirs(files: list[Path], transform: transforms.Compose) -> Iterator[list[Tensor]]:
    data = Files(files, transform)
    pin = DEVICE.type == "cuda"
    for views in DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS, pin_memory=pin, drop_last=True):
        yield [view.to(DEVICE, non_blocking=True) for view in views]


def ours(root: Path) -> Iterator[list[Tensor]]:
    data = Folder(root, views=settings(224), batch_size=BATCH, image_size=224, num_workers=WORKERS)
    loader = data.train_dataloader()
    loader.pin_memory = DEVICE.type == "cuda"
    for raw in loader:
        yield data.on_after_batch_transfer(data.transfer_batch_to_device(raw, DEVICE, 0)).views
    loader.close()


def processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(work: Pass) -> tuple[float, float]:
    """(seconds, processor seconds) per image of one pass over the files, its workers' start included."""
    start, before, images = time.perf_counter(), processor_time(), 0
    for views in work():
        assert [tuple(view.shape[1:]) for view in views] == [(3, 224, 224)] * 2
        images += len(views[0])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / images, (processor_time() - before) / images


def write(root: Path) -> list[Path]:
    for split, count in (("train", COUNT), ("test", 2)):
        (root / split).mkdir()
        for i, photo in enumerate(photos(count, 375, 500).numpy()):
            Image.fromarray(photo).save(root / split / f"{i}.jpg", quality=90)
    return sorted((root / "train").iterdir())


def main() -> None:
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        root = Path(folder) / "photos"
        root.mkdir()
        files = write(root)
        passes: dict[str, Pass] = {
            "like solo-learn": lambda: theirs(files, like_solo_learn()),
            "like lightly": lambda: theirs(files, like_lightly()),
            "ours": lambda: ours(root),
        }
        best = {name: (float("inf"), float("inf")) for name in passes}
        for _ in range(ROUNDS):
            for name, work in passes.items():
                seconds, processor = measure(work)
                best[name] = (min(best[name][0], seconds), min(best[name][1], processor))
    print(f"two views of 224 x 224 pixels from JPEG files, {WORKERS} workers, colours of ours on {DEVICE.type}")
    seconds, processor = best["like solo-learn"]
    for name, (s, p) in best.items():
        print(f"  {name:<16} {1 / s:>6,.0f} images/s   {seconds / s:.2f}x   {1000 * p:>5.1f} ms of processor time")


if __name__ == "__main__":
    main()
