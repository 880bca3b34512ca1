"""`data=audio`: a folder of your own recordings. `data=tones`: melodies that are made on the spot."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import everything
from ssl_lightning.data.base import Loaded, Split
from ssl_lightning.data.everything import Everything
from ssl_lightning.data.folder_scan import list_files
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.modalities.audio.reading import RECORDINGS
from ssl_lightning.modalities.audio.source import Recordings
from ssl_lightning.modalities.audio.tones import tones
from ssl_lightning.modalities.audio.tones_factors import factors


class Audio(AudioDataModule):
    """Recordings under one folder; layouts, labels and groups as `Recordings` reads them.

    Args:
        root: the folder.
        seconds: of a longer file a part of this length is read: in training one that is drawn, else the middle.
        labels, label_column: see `Recordings`.
        group, held_out, test_fraction: see `Recordings`; what is held out depends on `seed`.
        train, test: the folders to train and to evaluate on, by name under `root` or by path.
        loading: see `AudioDataModule`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        seconds: float = 30.0,
        labels: bool | str | None = None,
        label_column: str | Sequence[str] | None = None,
        group: str | None = None,
        held_out: str | Sequence[str] | None = None,
        test_fraction: float = 0.1,
        train: str | None = None,
        test: str | None = None,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError("data=audio needs data.root=FOLDER, a folder of recordings, or of folders of recordings")
        self.recordings = Recordings(
            root=root,
            sample_rate=self.sample_rate,
            seconds=seconds,
            labels=labels,
            label_column=label_column,
            group=group,
            held_out=held_out,
            test_fraction=test_fraction,
            train=train,
            test=test,
            seed=self.seed,
        )

    def everything(self) -> Everything:
        from_, listing = self.recordings, list_files(self.recordings.root, RECORDINGS)
        return everything.read(listing, from_.labels, from_.label_column, self.label_kind)

    def card(self) -> dict[str, Any]:
        return super().card() | {"seconds": self.recordings.seconds}

    def load(self) -> Loaded:
        train, test, probe = replace(self.recordings, reads=self.label_kind).load()
        return (train, test) if probe is train else (train, test, probe)


class Tones(AudioDataModule):
    """Melodies in 8 classes, made on the spot; see `tones`. Clip i of a split depends on (sound_seed, split, i) alone.

    Training clips are of instruments 0 to 7, test clips of four others.

    Args:
        size, test_size: number of training and of test clips.
        seconds: of the longest; the shortest have 0.6 times as much.
        sound_seed: of the clips; the run's seed does not change them.
        loading: see `AudioDataModule`; at 4000 Hz or more.
    """

    def __init__(
        self, size: int = 4000, test_size: int = 1000, seconds: float = 1.0, sound_seed: int = 0, **loading: Any
    ):
        super().__init__(**loading)
        if size < 1 or test_size < 1:
            raise UserError(f"tones needs data.size and data.test_size of 1 or more, not {size} and {test_size}")
        if self.sample_rate < 4000 or not 0 < seconds <= 60:
            raise UserError("tones needs data.sample_rate of 4000 or more, and data.seconds above 0 and at most 60")
        self.size, self.test_size, self.seconds, self.sound_seed = size, test_size, seconds, sound_seed

    def load(self) -> Loaded:
        how = self.sample_rate, self.seconds, self.sound_seed
        return tones(self.size, "train", *how), tones(self.test_size, "test", *how)

    def factors(self, split: Split, indices: Tensor) -> dict[str, Tensor]:
        return factors(indices, self.sound_seed, split)
