"""Small image files of one size are decoded once into a memory-mapped uint8 file and then used as an array."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.core import distributed, files
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import say
from ssl_lightning.data.folder_scan import cache_dir, writable
from ssl_lightning.data.loader import as_is, automatic_workers
from ssl_lightning.data.workers import begin
from ssl_lightning.modalities.image.images import BROKEN, ArrayImages, FileImages, ImageSet, decode, opened

SMALL_SIDE = 128  # pixels: larger images stay files
SMALL_BYTES = 2 * 1024**3
CHUNK = 256  # files decoded per task
FORMAT = 2  # raise when decoding changes


def decoded_once(images: FileImages) -> ImageSet:
    """`images` as `ArrayImages` when all are small and of one size; `images` itself otherwise.

    Files that cannot be decoded are left out, with one line about them.

    Raises:
        UserError: more than 1 % of the files cannot be decoded.
    """
    size = _common_size(images.paths)
    if size is None or len(images) * size[0] * size[1] * images.channels > SMALL_BYTES:
        return images
    folder = cache_dir() / "decoded"
    stem = folder / _digest(images, size)
    if not stem.with_suffix(".json").is_file():
        if not writable(folder):
            say(f"The cache folder {folder} cannot be written; the images are decoded for each batch instead.")
            return images
        try:
            _decode_all(images, size, stem)
        except OSError as error:
            why = error.strerror or error
            say(f"The decoded images cannot be kept in {folder} ({why}); they are decoded for each batch instead.")
            return images
    result = json.loads(stem.with_suffix(".json").read_text())
    if result["sizes_differ"]:
        return images
    return _good_rows(images, stem.with_suffix(".npy"), torch.tensor(result["broken"], dtype=torch.int64))


def _good_rows(images: FileImages, array_file: Path, broken: Tensor) -> ArrayImages:
    images.broken.add(broken)
    if distributed.is_main():
        images.broken.report()
    # "c": changes stay in memory, so that torch sees an array it may write to and does not warn
    array = torch.from_numpy(np.load(array_file, mmap_mode="c"))
    keep = torch.ones(len(images), dtype=torch.bool)
    keep[broken] = False
    paths = [path for path, good in zip(images.paths, keep.tolist(), strict=True) if good]
    # with nothing broken the memory map is used as it is, without a copy
    pixels = array if len(broken) == 0 else array[keep]
    good = ArrayImages(pixels, images.labels[keep], images.classes, paths, images.channels)
    return good.with_targets(None if images.targets is None else images.targets[keep], images.target_names)


def _common_size(paths: list[str], probes: int = 32) -> tuple[int, int] | None:
    """(height, width) when a spread of `probes` files agrees on one small size, by their headers."""
    sizes = set()
    for row in np.linspace(0, len(paths) - 1, min(probes, len(paths))).astype(int):
        try:
            with opened(paths[row]) as image:
                sizes.add((image.height, image.width))
        except BROKEN:
            continue  # counted when it is decoded
    if len(sizes) != 1 or max(max(sizes)) > SMALL_SIDE:
        return None
    return sizes.pop()


def _digest(images: FileImages, size: tuple[int, int]) -> str:
    """Changes when a file is added, removed, renamed or rewritten, or its values are read in another way."""
    read = f"{images.channels} {images.value_range}"
    digest = hashlib.sha256(f"{FORMAT} {size} {len(images)} {read}".encode())
    for path in images.paths:
        try:
            status = os.stat(path)
        except OSError:  # removed since it was listed: it counts as broken
            continue
        digest.update(os.fsencode(path) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


class _Chunks(Dataset[tuple[np.ndarray, list[int], bool]]):
    """Task i decodes files i*CHUNK and on: (uint8 (n, H, W, C), broken rows, a size differs)."""

    def __init__(self, images: FileImages, size: tuple[int, int]):
        self.images, self.size = images, size

    def __len__(self) -> int:
        return -(-len(self.images) // CHUNK)

    def __getitem__(self, task: int) -> tuple[np.ndarray, list[int], bool]:
        first = task * CHUNK
        paths, channels = self.images.paths[first : first + CHUNK], self.images.channels
        pixels = np.zeros((len(paths), *self.size, channels), np.uint8)
        broken, differs = [], False
        for row, path in enumerate(paths):
            try:
                image = decode(path, channels, self.images.value_range).numpy()
            except BROKEN:
                broken.append(first + row)
                continue
            if image.shape[:2] == self.size:
                pixels[row] = image
            else:
                differs = True
        return pixels, broken, differs


class _SizesDiffer(Exception):
    """The images make no array."""


def _decode_all(images: FileImages, size: tuple[int, int], stem: Path) -> None:
    """Writes STEM.npy, where all are of one size, and, once that is whole, STEM.json.

    Row after row, not into a memory map: on a full disk that would end the process.
    """
    broken: list[int] = []
    differs = False
    try:
        with files.atomic(stem.with_suffix(".npy")) as temporary, open(temporary, "wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *size, images.channels)}
            np.lib.format.write_array_header_1_0(out, header)
            for pixels, bad in _decoded(images, size, stem.parent):
                out.write(pixels.data)
                broken += bad
            if len(broken) == len(images):
                first = images.paths[0]
                raise UserError(
                    f"none of the {len(images)} image files can be decoded, {first} first; are they images?"
                )
    except _SizesDiffer:
        differs = True
    files.write_atomic(stem.with_suffix(".json"), json.dumps({"sizes_differ": differs, "broken": broken}))


def _decoded(images: FileImages, size: tuple[int, int], folder: Path) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Chunks in order: decoded images uint8 (n, H, W, C), broken rows. Raises _SizesDiffer at the first other size."""
    workers = 0
    if len(images) > 4 * CHUNK:
        workers = automatic_workers()
        say(f"Decoding {len(images)} images of {size[0]} x {size[1]} once, into {folder}.")
    chunks = DataLoader(
        _Chunks(images, size), batch_size=None, num_workers=workers, collate_fn=as_is, worker_init_fn=begin
    )
    for pixels, bad, other_size in chunks:
        if other_size:
            raise _SizesDiffer
        yield pixels, bad
