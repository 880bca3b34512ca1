"""Views of whole items, and which items none holds: for tasks whose targets are of all of an item."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.sampler import EVALUATE
from ssl_lightning.modalities.audio.clips import ArrayClips, FileClips
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.modalities.image.hooks import ImageDataModule
from ssl_lightning.modalities.image.images import ArrayImages, FileImages

EVERY = {"train": torch.arange(3), "test": torch.arange(2)}


def test_recordings_longer_than_a_view_or_than_what_is_read(tmp_path: Path) -> None:
    clips = [torch.sin(torch.arange(n) / 9) for n in (800, 2400, 4000)]
    for i, clip in enumerate(clips):
        soundfile.write(tmp_path / f"{i}.wav", np.repeat(clip.numpy(), 2), 16000)  # at another rate than is asked for
    (tmp_path / "3.wav").write_bytes(b"none")
    files = FileClips([str(tmp_path / f"{i}.wav") for i in range(4)], 8000, most=9000)
    assert files.whole_lengths(torch.tensor([3, 2, 0])).tolist() == [0, 4000, 800]
    held = ArrayClips.of(clips, 8000, most=9000)
    assert held.whole_lengths(torch.tensor([2, 0])).tolist() == [4000, 800]

    def told(length: int, most: int) -> tuple[int, str]:
        class Some(AudioDataModule):
            def load(self) -> tuple[ArrayClips, ArrayClips]:
                return ArrayClips.of(clips, 8000, most), ArrayClips.of(clips[1:], 8000, most)

        return Some(sample_rate=8000, length=length).beyond_view(EVERY)  # type: ignore[arg-type]

    assert told(4000, 4000)[0] == 0
    assert told(2400, 9000) == (2, "give data.length=4000")
    assert told(2399, 9000) == (4, "give data.length=4000")
    assert told(9000, 1000) == (4, "give data.seconds=1")
    assert told(800, 3000) == (4, "give data.length=4000 data.seconds=1")


def test_images_that_are_not_square(tmp_path: Path) -> None:
    for i, (width, height) in enumerate(((8, 8), (9, 8), (8, 9))):
        Image.new("RGB", (width, height)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"none")
    files = FileImages([str(tmp_path / f"{i}.png") for i in range(4)])
    assert files.sides(torch.tensor([1, 3, 0])).tolist() == [[8, 9], [0, 0], [8, 8]]

    class Some(ImageDataModule):
        def load(self) -> tuple[FileImages, ArrayImages]:
            return files, ArrayImages(torch.zeros(2, 4, 6, 3, dtype=torch.uint8))

    assert Some().beyond_view(EVERY)[0] == 2 + 2  # type: ignore[arg-type]
    assert DataModule().beyond_view(EVERY) == (0, "")  # type: ignore[arg-type]


def test_the_view_of_a_whole_image_is_the_image() -> None:
    """Neither flipped nor changed: what it says is to be read."""
    pixels = torch.randint(0, 256, (16, 12, 12, 3), dtype=torch.uint8)

    class Some(ImageDataModule):
        def load(self) -> tuple[ArrayImages, ArrayImages]:
            return ArrayImages(pixels), ArrayImages(pixels)

    data = Some(image_size=12)
    data.use_views(data.whole_views())
    raw = RawBatch(pixels, torch.zeros(16), torch.arange(16), 0, EVALUATE)
    (drawn,), (wanted,) = data.training_views(raw)[0], data.evaluation_views(raw)[0]
    assert (drawn - wanted).abs().max() < 1e-4
