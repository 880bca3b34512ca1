"""Sets of clips: in memory (`ArrayClips`), or files read on access (`FileClips`), with labels and groups."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import BrokenFiles, WholeSet
from ssl_lightning.modalities.audio import reading

PART_STREAM = 900  # of which part of a long clip is taken
LEVELS = 32768  # of int16
MOST_GAIN = 60.0  # dB
Places = Callable[[Tensor], Tensor]  # rows (B,) -> where in each long clip its part lies, (B,) in [0, 1)


class Fetched(NamedTuple):
    """Clips of a batch: x float32 (B, L), 0 after the first lengths (B,) of each; rows (B,), and the rows (K,) that
    are broken and were replaced by the next good ones."""

    x: Tensor
    lengths: Tensor
    rows: Tensor
    broken: Tensor


class ClipSet(Dataset[tuple[Tensor, int, int]]):
    """Clips of one sample rate; `clips[i]` is `(float32 (n,), label, i)`.

    Attributes:
        labels: (N,) int64, -1 where there is none.
        classes: the class names, in label order; [] when unlabelled.
        groups: (N,) int64, -1 where there is none; `group_names` names them.
        targets: (N, L) int8 of several labels for each clip, or None; `target_names` names the L.
        paths: the file of each clip, or None.
        sample_rate: Hz.
        most: of a longer clip a part of so many samples is taken.
        level: dB of full scale that each clip's root mean square is brought to, see `leveled`; None: as it is.
        in_memory: whether a clip costs next to nothing to fetch. broken: counts files that cannot be read, or None.
    """

    noun: ClassVar[str] = "recording"
    in_memory: bool = False
    broken: BrokenFiles | None = None
    labels: Tensor
    classes: list[str]
    groups: Tensor
    group_names: list[str]
    targets: Tensor | None
    target_names: Sequence[str]
    paths: list[str] | None
    sample_rate: int
    most: int
    level: float | None = None

    def _begin(self, count: int, sample_rate: int, most: int) -> None:
        if sample_rate < 1 or most < 1:
            raise UserError(f"clips of {most} samples at {sample_rate} Hz are empty; give 1 or more of each")
        self.labels, self.classes = torch.full((count,), -1), []
        self.groups, self.group_names = torch.full((count,), -1), []
        self.targets, self.target_names, self.paths = None, (), None
        self.sample_rate, self.most = sample_rate, most

    def labelled_as(self, labels: Tensor, classes: Sequence[str]) -> Self:
        """This set, with one label (N,) for each clip, -1 for none."""
        self.labels, self.classes = self._one_each(labels, "labels"), list(classes)
        return self

    def grouped_as(self, groups: Tensor, names: Sequence[str]) -> Self:
        """This set, with one group (N,) for each clip, -1 for none."""
        self.groups, self.group_names = self._one_each(groups, "groups"), list(names)
        return self

    def with_targets(self, targets: Tensor | None, names: Sequence[str]) -> Self:
        """This set, with several labels for each clip: `targets` (N, L)."""
        if targets is not None and len(targets) != len(self):
            raise UserError(f"there are {len(self)} clips but {len(targets)} rows of labels; give one row per clip")
        self.targets, self.target_names = targets, tuple(names)
        return self

    def _one_each(self, values: Tensor, what: str) -> Tensor:
        if values.shape != (len(self),):
            raise UserError(f"there are {len(self)} clips but {len(values)} {what}; give one per clip")
        return values.to(torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.clip(index), int(self.labels[index]), index

    def clip(self, index: int, where: float = 0.5) -> Tensor:
        """One clip, float32 (n,) with n <= `most`; of a longer one the part that begins at `where` of what is left.

        As it is in its file, whatever `level`.
        """
        raise NotImplementedError

    def fetch(self, rows: Tensor, places: Places | None = None) -> Fetched:
        """The clips of `rows` (B,) as one batch, at their `level`; the middle of long ones without `places`."""
        raise NotImplementedError

    def whole_lengths(self, rows: Tensor) -> Tensor:
        """(M,) int64, the samples of these clips before any part is taken; 0 of a file that cannot be read."""
        raise NotImplementedError

    def subset(self, rows: Tensor) -> Self:
        """The `rows` (M,) as a set of their own; the names of classes and groups stay."""
        part = copy.copy(self)
        part.labels, part.groups = self.labels[rows], self.groups[rows]
        part.targets = None if self.targets is None else self.targets[rows]
        part.paths = None if self.paths is None else [self.paths[i] for i in rows.tolist()]
        return part

    def labelled_at(self, rows: Tensor) -> Self:
        """The same clips, -1 for each label that is not at `rows` (M,)."""
        clips = copy.copy(self)
        clips.labels = torch.full_like(self.labels, -1).index_copy_(0, rows, self.labels[rows])
        return clips

    @property
    def labelled(self) -> bool:
        """True when every clip has a label."""
        return len(self) > 0 and bool((self.labels >= 0).all())


def leveled(x: Tensor, lengths: Tensor, level: float | None) -> Tensor:
    """Clips (B, L), 0 after their `lengths` (B,), each times what brings its root mean square to `level` dB.

    0 dB is a root mean square of 1. A clip is made louder by at most `MOST_GAIN` dB, so that silence stays silent.
    """
    if level is None:
        return x
    mean_square = x.square().sum(1, keepdim=True) / lengths.clamp(min=1).unsqueeze(1)  # (B, 1)
    wanted = 10 ** (level / 20)
    return x * (wanted / mean_square.sqrt().clamp(min=wanted / 10 ** (MOST_GAIN / 20)))


def part_places(seed: int, epoch: int) -> Places:
    """Where the parts of long clips lie in training: a pure function of (seed, epoch, row)."""
    return lambda rows: uniform(seed, epoch, rows, PART_STREAM, 1)[:, 0]


def middle(rows: Tensor) -> Tensor:
    """The middle of each clip, as in evaluation: 0.5 for each row."""
    return torch.full((len(rows),), 0.5)


class ArrayClips(ClipSet):
    """Clips in memory, one after the other, fetched by one index operation for a whole batch.

    Args:
        samples: (S,) int16 or float.
        lengths: (N,) int64 of the clips, S in sum.
        sample_rate, most: see `ClipSet`.
        scales: (N,) float32; a clip's samples times its scale (times 1 / 32768 if int16) are its values. None: 1.
    """

    in_memory = True

    def __init__(
        self, samples: Tensor, lengths: Tensor, sample_rate: int, most: int | None = None, scales: Tensor | None = None
    ):
        if samples.ndim != 1 or int(lengths.sum()) != len(samples):
            raise UserError(f"clips of {int(lengths.sum())} samples in sum do not fill {tuple(samples.shape)}")
        self._begin(
            len(lengths), sample_rate, max(1, int(lengths.max()) if len(lengths) else 1) if most is None else most
        )
        self.samples, self.lengths = samples, lengths.to(torch.int64)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.scales = torch.ones(len(lengths)) if scales is None else scales

    @staticmethod
    def of(clips: Sequence[Tensor], sample_rate: int, most: int | None = None) -> "ArrayClips":
        """Clips, float (n,) each, as int16; one that goes above 1 is scaled for itself."""
        scales = torch.tensor([max(1.0, float(clip.abs().max())) if len(clip) else 1.0 for clip in clips])
        whole = [
            (clip / scale * LEVELS).round().clamp_(-LEVELS, LEVELS - 1).to(torch.int16)
            for clip, scale in zip(clips, scales.tolist(), strict=True)
        ]
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.int64)
        return ArrayClips(torch.cat(whole), lengths, sample_rate, most, scales)

    def clip(self, index: int, where: float = 0.5) -> Tensor:
        rows = torch.tensor([index])
        plain = copy.copy(self)
        plain.level = None
        return plain.fetch(rows, lambda rows: torch.full((len(rows),), where)).x[0]

    def fetch(self, rows: Tensor, places: Places | None = None) -> Fetched:
        device, rows = self.samples.device, rows.cpu()
        whole = self.lengths[rows]
        lengths = whole.clamp(max=self.most)
        room = (whole - lengths + 1).double()
        where = middle(rows) if places is None else places(rows)
        starts = self.starts[rows] + (where.double() * room).long()
        steps = torch.arange(int(lengths.max()) if len(rows) else 0)
        inside = steps < lengths.unsqueeze(1)  # (B, L)
        at = torch.where(inside, starts.unsqueeze(1) + steps, 0).to(device)
        scales = self.scales[rows] / (LEVELS if self.samples.dtype == torch.int16 else 1)
        x = self.samples[at].float() * (inside * scales.unsqueeze(1)).to(device)
        x = leveled(x, lengths.to(device), self.level)
        return Fetched(x, lengths.to(device), rows, rows[:0])

    def whole_lengths(self, rows: Tensor) -> Tensor:
        return self.lengths[rows]

    def to(self, device: torch.device) -> "ArrayClips":
        """The same set with its samples on a device."""
        moved = copy.copy(self)
        moved.samples = self.samples.to(device)
        return moved

    def subset(self, rows: Tensor) -> "ArrayClips":
        """As `ClipSet.subset`; the samples are shared."""
        part = super().subset(rows)
        part.lengths, part.starts, part.scales = self.lengths[rows], self.starts[rows], self.scales[rows]
        return part


class FileClips(ClipSet):
    """Sound files of any rate, length and number of channels, read on access; `broken` counts those that cannot be.

    Args:
        paths: of the files.
        sample_rate, most: see `ClipSet`.
        whole: the set that these are a part of, for the share of files that may be broken; None: of their own.
    """

    paths: list[str]
    broken: BrokenFiles

    def __init__(self, paths: list[str], sample_rate: int, most: int, whole: WholeSet | None = None):
        self._begin(len(paths), sample_rate, most)
        self.paths = paths
        whole = whole or WholeSet(len(paths), reading.RECORDINGS.word, reading.FAULT)
        self.broken = BrokenFiles(paths, whole)

    def clip(self, index: int, where: float = 0.5) -> Tensor:
        return reading.read(self.paths[index], self.sample_rate, self.most, where)

    def fetch(self, rows: Tensor, places: Places | None = None) -> Fetched:
        """A broken file is replaced by the next good one; an empty batch where too many are broken."""
        places = middle if places is None else places
        broken: list[int] = []
        clips, used = [], []
        for wanted, where in zip(rows.tolist(), places(rows).tolist(), strict=True):
            clip, row = self._good(wanted, where, places, broken)
            if clip is None:  # the loader stops the run: an error from a worker would arrive as a page of traceback
                return Fetched(torch.zeros(0, 1), rows[:0], rows[:0], torch.tensor(broken, dtype=torch.int64))
            clips.append(clip)
            used.append(row)
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.int64)
        x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True) if clips else torch.zeros(0, 1)
        x = leveled(x, lengths, self.level)
        return Fetched(x, lengths, torch.tensor(used, dtype=torch.int64), torch.tensor(broken, dtype=torch.int64))

    def _good(self, row: int, where: float, places: Places, broken: list[int]) -> tuple[Tensor | None, int]:
        """The clip at `row`, or at the next good row (around the end); None when too many are broken."""
        for step in range(len(self)):
            at = (row + step) % len(self)
            try:
                return self.clip(at, where if step == 0 else float(places(torch.tensor([at]))[0])), at
            except reading.BROKEN:
                broken.append(at)
            if len(set(broken)) > self.broken.whole.most:
                break
        return None, row

    def whole_lengths(self, rows: Tensor) -> Tensor:
        found = torch.zeros(len(rows), dtype=torch.int64)
        for at, row in enumerate(rows.tolist()):
            with contextlib.suppress(*reading.BROKEN):
                found[at] = reading.length(self.paths[row], self.sample_rate)
        return found

    def subset(self, rows: Tensor) -> "FileClips":
        part = super().subset(rows)
        part.broken = BrokenFiles(part.paths, self.broken.whole)
        return part
