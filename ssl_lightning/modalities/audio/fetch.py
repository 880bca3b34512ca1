"""How clips are fetched for a batch: those in memory at once, files one by one, partners for mixing beside them."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.labelled import targets_of
from ssl_lightning.data.sampler import Request
from ssl_lightning.modalities.audio.clips import ArrayClips, ClipSet, part_places

Partners = Callable[[Tensor, int], list[Tensor]]  # (rows (B,), epoch) -> rows (B,) for each view that mixes


class Clips(NamedTuple):
    """The items of a batch: waves float32 (B, L), 0 after the first `lengths` (B,) of each, and for each view that
    mixes the (waves, lengths) that are mixed in."""

    x: Tensor
    lengths: Tensor
    others: tuple[tuple[Tensor, Tensor], ...] = ()


class ClipFetch(Dataset[RawBatch]):
    """Fetches a batch of clips: in evaluation the middle of long ones, in training a part that is drawn.

    A broken file is replaced by the next good one; its partners are those of that one, so that what is made of a row
    depends on neither the batch nor the number of processes.

    Args:
        clips: the set.
        seed: of the parts that are taken of long clips; None: evaluation.
        partners: `DeviceAudioViews.partners`, or None.
    """

    def __init__(self, clips: ClipSet, seed: int | None = None, partners: Partners | None = None):
        self.clips, self.seed, self.partners = clips, seed, partners
        self.at_once = isinstance(clips, ArrayClips)

    def __getitem__(self, request: Request) -> RawBatch:
        epoch, rows, purpose = Request(*request)
        places = None if self.seed is None else part_places(self.seed, epoch)
        found = self.clips.fetch(rows, places)
        used = found.rows
        others = []
        if self.partners is not None and len(used):
            for wanted in self.partners(used, epoch):
                other = self.clips.fetch(wanted, places)
                if not len(other.rows):  # too many are broken, of which the loader makes a line
                    used = other.rows
                    found = other
                    break
                others.append((other.x, other.lengths))
        items = Clips(found.x, found.lengths, tuple(others))
        return RawBatch(items, targets_of(self.clips, used), used, epoch, found.broken, purpose)
