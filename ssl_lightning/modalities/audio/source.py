"""Own recordings: a folder of wav, flac or ogg files, labels by folder, table or file name, and groups kept apart."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core import distributed
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, TEXTS, Reads
from ssl_lightning.data import groups, label_file, layout, name_pattern
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.data.folder_scan import Listing, list_files
from ssl_lightning.data.labelled import shares
from ssl_lightning.data.labels import split
from ssl_lightning.data.loader import automatic_workers
from ssl_lightning.modalities.audio import reading
from ssl_lightning.modalities.audio.clips import ArrayClips, ClipSet, FileClips

MEMORY_BYTES = 2**30  # sets that are no larger are held in memory, as int16
LONGEST = MEMORY_BYTES // 16  # samples of a file that may be: with longer ones all stay files
LOOKED_AT, AHEAD = 64, 256  # headers that are looked at; files that are read ahead
FOLDER = "folder"  # of `group`: the folder that a file lies in
Parts = tuple[ClipSet, ClipSet, ClipSet]


@dataclass(frozen=True)
class Recordings:
    """Where recordings lie and what their folders and names mean; `load` gives (train, test, probe).

    `probe` holds the labelled training clips: `train` itself unless some have no label. Recordings are found at any
    depth; `train/` and `test/` folders, class folders and tables are understood as they are for images.

    Args:
        root: the folder.
        sample_rate: Hz; every file is resampled to it and mixed to mono.
        seconds: of a longer file, a part of this length is read.
        labels: None: class folders where the layout has them; True: the first folder is the class; False: none; a path:
            a table (`label_file.read`); a text with braces: a pattern of the file's name, such as
            "{label}_{group}_{take}" (`name_pattern.compiled`).
        label_column: of the table.
        group: what must not be in both splits, such as the speaker: a column of the table, a field of the pattern
            (`group` is taken without being named), a pattern of its own with a field {group}, or "folder", the folder
            that a file lies in.
        held_out: groups to evaluate on, by name; None: as many as make `test_fraction`.
        test_fraction: share held out where there is no test folder.
        train, test: folders to train and to evaluate on, under `root` or anywhere.
        seed: of the split.
        reads: what the labels of a table are read as.
    """

    root: str | Path
    sample_rate: int = 16_000
    seconds: float = 30.0
    labels: bool | str | None = None
    label_column: str | Sequence[str] | None = None
    group: str | None = None
    held_out: str | Sequence[str] | None = None
    test_fraction: float = 0.1
    train: str | None = None
    test: str | None = None
    seed: int = 0
    reads: Reads = CLASSES

    def __post_init__(self) -> None:
        table = isinstance(self.labels, str) and not name_pattern.is_pattern(self.labels)
        if self.label_column is not None and not table:
            raise UserError(
                f"data.label_column={self.label_column} names a column of a table; set data.labels=FILE.csv, too"
            )
        if self.held_out is not None and self._group is None:
            raise UserError("data.held_out needs groups; set data.group to say what they are")
        if name_pattern.is_pattern(self.labels):
            name_pattern.field_of(str(self.labels), "label", "data.labels: label")

    @property
    def _group(self) -> str | None:
        """`group`, or the pattern's own field of that name."""
        if self.group is None and name_pattern.is_pattern(self.labels):
            return "group" if "group" in name_pattern.fields(str(self.labels)) else None
        return self.group

    def load(self) -> Parts:
        """(train, test, probe). Raises UserError for what is not there, and files of which too many are broken."""
        reading.soundfile()  # said before a long scan
        listing = list_files(self.root, reading.RECORDINGS)
        splits = layout.find_splits(listing, self.train, self.test)
        train, test, probe = self._split(splits, listing)
        words = [_words(clips, self.reads) for clips in (train, test)]
        say(f"{self.root}: {words[0]} to train on, {words[1]} to evaluate on.")
        return train, test, probe

    def _split(self, splits: layout.Splits, listing: Listing) -> Parts:
        if isinstance(self.labels, str):
            parts = [layout.once(p) for p in (splits.train or listing, splits.test or splits.validation) if p]
            names = [name for part in parts for name in _within(part, listing.root)]
            clips = self._clips([path for part in parts for path in part.paths()], names, self._named(listing, names))
            return self._by_rows(clips, len(parts[0].files) if len(parts) == 2 else None)
        if splits.train is None:
            found, classes = layout.class_folders(listing, self.labels, exact_depth=True)
            return self._by_rows(self._of_listing(found, classes, listing.root), None)
        found, classes = layout.class_folders(splits.train, self.labels, exact_depth=False)
        test, labelled = layout.evaluated_on(splits, classes)
        train_clips = self._of_listing(found, classes, listing.root)
        if test is None:
            return self._by_rows(train_clips, None)
        test_clips = self._of_listing(test, classes if labelled else [], listing.root)
        self._check_apart(train_clips, test_clips)
        return train_clips, test_clips, train_clips

    # ---- labels and groups

    def _named(self, listing: Listing, names: list[str]) -> label_file.Labels:
        """Labels, and groups as far as they stand in the same place, from a table or the files' names."""
        text, group = str(self.labels), self._group
        own = group is None or group == FOLDER or name_pattern.is_pattern(group)
        if not name_pattern.is_pattern(text):
            column = None if own else group
            return label_file.read(text, listing.root, names, self.label_column, reading.RECORDINGS, column, self.reads)
        if not own:
            name_pattern.field_of(text, str(group), "data.group")
        read = name_pattern.read(text, names)
        classes = label_file.in_order({found["label"] for found in read if found})
        labels = torch.tensor([classes.index(found["label"]) if found else -1 for found in read])
        return label_file.Labels(
            labels, classes, groups=() if own else tuple(found.get(str(group), "") for found in read)
        )

    def _groups(self, names: list[str], beside: tuple[str, ...]) -> tuple[Tensor, list[str]]:
        group = self._group
        if group is None:
            return torch.full((len(names),), -1), []
        if group == FOLDER:
            return groups.numbered([name.rpartition("/")[0] for name in names])
        if name_pattern.is_pattern(group):
            field = name_pattern.field_of(group, "group", "data.group: group")
            return groups.numbered([found.get(field, "") for found in name_pattern.read(group, names, "data.group")])
        if not beside:
            raise UserError(
                f"data.group={group} names a column of a table or a field of a pattern, but data.labels is neither; "
                "set a pattern such as data.group='{group}_*', or data.group=folder"
            )
        return groups.numbered(beside)

    def _of_listing(self, listing: Listing, classes: list[str], root: str) -> ClipSet:
        number = {name: label for label, name in enumerate(classes)}
        labels = torch.tensor([number.get(name.split("/", 1)[0], -1) for name in listing.files])
        return self._clips(listing.paths(), _within(listing, root), label_file.Labels(labels, classes))

    # ---- clips

    def _clips(self, paths: list[str], names: list[str], found: label_file.Labels) -> ClipSet:
        most = max(1, round(self.seconds * self.sample_rate))
        clips = FileClips(paths, self.sample_rate, most).labelled_as(found.labels, found.classes)
        clips.with_targets(found.targets, found.names).grouped_as(*self._groups(names, found.groups))
        return in_memory(clips)

    def _by_rows(self, clips: ClipSet, first: int | None) -> Parts:
        """Clips that are labelled by themselves: the rows from `first` on are the test folder's, if there is one."""
        rows = torch.arange(len(clips))
        known = label_file.Labels(clips.labels, [], clips.targets).known
        if not bool(known.any()):
            known = torch.ones_like(known)  # without labels all are trained and evaluated on alike
        if first is not None and bool(known[first:].any()):
            train, test = rows[:first], rows[first:]
            self._check_apart(clips.subset(train), clips.subset(test))
        else:
            rows = rows if first is None else rows[:first]
            train, test = self._hold_out(clips, rows, known)
        probe, test = train[known[train]], test[known[test]]
        if len(test) == 0 or len(probe) == 0:
            which = "evaluation" if len(test) == 0 else "training"
            raise UserError(f"{self.root}: no {which} recording has a label; give labels for both, or more recordings")
        trained = clips.subset(train)
        return trained, clips.subset(test), trained if len(probe) == len(train) else clips.subset(probe)

    def _hold_out(self, clips: ClipSet, rows: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        if len(rows) < 2:
            raise UserError(
                f"only one recording under {self.root}; at least two are needed, one to train on and one to evaluate on"
            )
        usable = rows[known[rows]]
        labels = shares(clips.labels[usable], self.reads)
        if self._group is None:
            test = usable[split(labels, self.test_fraction, self.seed)[1]]
            return rows[~torch.isin(rows, test)], test
        held_out = [self.held_out] if isinstance(self.held_out, str) else self.held_out
        which = clips.groups[usable], labels, self.test_fraction, self.seed
        test = usable[groups.group_split(*which, held_out, clips.group_names)[1]]
        of = clips.groups[test].unique()
        of = of[of >= 0]
        if len(of):
            names = named([clips.group_names[i] for i in of.tolist()], 8)
            say(f"{self.root}: held out for evaluation, with all of their recordings: {names}.")
        # What these groups have without a label is left out, too.
        return rows[~(torch.isin(rows, test) | torch.isin(clips.groups[rows], of))], test

    def _check_apart(self, train: ClipSet, test: ClipSet) -> None:
        ours, theirs = ({clips.group_names[i] for i in clips.groups.tolist() if i >= 0} for clips in (train, test))
        groups.check_apart(ours, theirs, "leave data.group out, or let the split be drawn (no train and test folder)")


def in_memory(clips: FileClips) -> ClipSet:
    """All clips as `ArrayClips` where they are small in sum, without the broken ones; `clips` itself otherwise.

    Raises:
        UserError: more than 1 % of the files cannot be used.
    """
    if _samples(clips) * 2 > MEMORY_BYTES:
        return clips
    kept, scales, broken, total = list[Tensor](), list[float](), list[int](), 0
    for row, clip in enumerate(_whole_files(clips)):
        if clip is None:
            broken.append(row)
            continue
        one = ArrayClips.of([clip], clips.sample_rate)
        kept.append(one.samples)
        scales.append(float(one.scales))
        total += len(clip)
        if total * 2 > 2 * MEMORY_BYTES:
            return clips  # the files that were looked at are shorter than most
    clips.broken.add(torch.tensor(broken, dtype=torch.int64))
    if distributed.is_main():
        clips.broken.report()
    good = torch.ones(len(clips), dtype=torch.bool)
    good[broken] = False
    part = clips.subset(good.nonzero().flatten())
    lengths = torch.tensor([len(samples) for samples in kept], dtype=torch.int64)
    held = ArrayClips(torch.cat(kept), lengths, clips.sample_rate, clips.most, torch.tensor(scales))
    held.labelled_as(part.labels, part.classes).grouped_as(part.groups, part.group_names)
    held.with_targets(part.targets, part.target_names).paths = part.paths
    return held


def _samples(clips: FileClips) -> float:
    """How many samples there are, by the headers of a few files; infinite where one of these is very long."""
    found = []
    for row in np.linspace(0, len(clips) - 1, min(LOOKED_AT, len(clips))).astype(int):
        try:
            found.append(reading.length(clips.paths[row], clips.sample_rate))
        except reading.BROKEN:
            continue  # counted when it is read
    if max(found, default=0) > LONGEST:
        return math.inf
    return len(clips) * sum(found) / max(len(found), 1)


def _whole_files(clips: FileClips) -> Iterator[Tensor | None]:
    """Each file's samples, in order; None for a broken one."""

    def read(path: str) -> Tensor | None:
        try:
            return reading.read(path, clips.sample_rate, LONGEST, 0.0)
        except reading.BROKEN:
            return None

    with ThreadPoolExecutor(automatic_workers()) as pool:
        for start in range(0, len(clips), AHEAD):
            yield from pool.map(read, clips.paths[start : start + AHEAD])


def _within(listing: Listing, root: str) -> list[str]:
    """The files' paths relative to `root`, where they lie under it."""
    return [path.removeprefix(f"{root}/") for path in listing.paths()]


def _words(clips: ClipSet, reads: Reads = CLASSES) -> str:
    """`900 recordings in 10 classes, of 6 groups`."""
    text = counted(len(clips), "recording")
    classes, found = (int((values.unique() >= 0).sum()) for values in (clips.labels, clips.groups))
    if clips.targets is not None:
        what = "number" if clips.targets.is_floating_point() else "label"
        text += f" with {counted(len(clips.target_names), what)} each"
    else:
        what = f" with {counted(classes, 'different text')}" if reads == TEXTS else f" in {counted(classes, 'class')}"
        text += what if classes else " without labels"
    return text + (f", of {counted(found, 'group')}" if found else "")
