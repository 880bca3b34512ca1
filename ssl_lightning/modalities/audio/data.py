"""`AudioDataModule`: a source of recordings becomes training batches of views, and evaluation batches of one view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import has_tokens, token_encoder
from ssl_lightning.data.base import DataModule, Drawn, Split
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.loader import WORKER_TIMEOUT
from ssl_lightning.data.plan import Views
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.modalities.audio import naive
from ssl_lightning.modalities.audio.clips import ArrayClips, ClipSet
from ssl_lightning.modalities.audio.draw import AudioView, AudioViews
from ssl_lightning.modalities.audio.fetch import ClipFetch
from ssl_lightning.modalities.audio.logmel import LogMel, Normal, normal_of
from ssl_lightning.modalities.audio.reading import RATES
from ssl_lightning.modalities.audio.show import show
from ssl_lightning.modalities.audio.views import AudioEvalView, DeviceAudioViews

RESIDENT_BYTES = 2 * 1024**3
MOST_MELS, LONGEST_WINDOW = 1024, 1.0  # bands; seconds
MOST_LENGTH = 2**27  # samples of a view


class AudioDataModule(DataModule):
    """Base of all sources of audio: a subclass overrides `load` and passes `**loading` on to this class.

    Args:
        views: how training views are drawn; None when nothing is trained (stages that only evaluate).
        batch_size: clips per device and step.
        sample_rate: Hz, 1000 to 384000; what is read is resampled to it.
        length: samples of the evaluation view, the middle of a longer clip, zeros around a shorter one. Views of
            training name their own, mostly this one.
        level: dB of full scale that the root mean square of each clip is brought to; None: as it is.
        representation: "logmel" (1, mels, length // hop) or "wave" (1, length): what a network is given.
        mels, window, hop, low, high: of the log-mel, see `LogMel`; window and hop in seconds, low and high in Hz. The
            naive baseline is made with them in both representations.
        mean, std: inputs become (x - mean) / std, one number each; None: of the training set, seeded, once. They are
            kept in the card of the network.
        num_workers: processes that read files; None = none for clips in memory, else one per core, at most 8.
        label_fraction, labels_per_class: how many training labels `labelled_indices` gives out; None = all.
        bank_size: training clips in the kNN bank during training; None = all.
        query_size: evaluation clips scored during training; None = all.
        seed: of the shuffle, the views and all subsets.
        resident: keep clips in memory on the GPU; "auto" = when they are smaller than 2 GB.
        worker_timeout: seconds after which processes that do not answer end the run.
    """

    modality, noun, naive_name = "audio", "recording", "mel_statistics"

    def __init__(
        self,
        views: Views | None = None,
        batch_size: int = 256,
        sample_rate: int = 16_000,
        length: int = 15_360,
        representation: Literal["logmel", "wave"] = "logmel",
        mels: int = 64,
        window: float = 0.025,
        hop: float = 0.01,
        low: float = 60.0,
        high: float | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        level: float | None = None,
        num_workers: int | None = None,
        label_fraction: float | None = None,
        labels_per_class: int | None = None,
        bank_size: int | None = 5000,
        query_size: int | None = None,
        seed: int = 0,
        resident: bool | Literal["auto"] = "auto",
        worker_timeout: float = WORKER_TIMEOUT,
    ):
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            label_fraction=label_fraction,
            labels_per_class=labels_per_class,
            bank_size=bank_size,
            query_size=query_size,
            seed=seed,
            worker_timeout=worker_timeout,
        )
        if representation not in ("logmel", "wave"):
            raise UserError(f"data.representation={representation} is unknown; use logmel or wave")
        if not RATES[0] <= sample_rate <= RATES[1]:
            raise UserError(f"data.sample_rate={sample_rate} is not from {RATES[0]} to {RATES[1]} Hz")
        if mels > MOST_MELS or window > LONGEST_WINDOW:
            raise UserError(f"data.mels is at most {MOST_MELS} and data.window {LONGEST_WINDOW:g} s")
        self.sample_rate, self.length, self.representation, self.resident = (
            sample_rate,
            length,
            representation,
            resident,
        )
        self.mel = LogMel(sample_rate, mels, window, hop, low, high)
        if not self.mel.hop_samples <= length <= MOST_LENGTH:
            raise UserError(
                f"data.length={length} samples make no view; give {self.mel.hop_samples} (one frame) to {MOST_LENGTH}"
            )
        self._normal, self.level = _stated(mean, std), level
        self._drawer: DeviceAudioViews | None = None
        self.use_views(views)

    # ---- what a network is given

    @property
    def given_mel(self) -> LogMel | None:
        """The spectrogram that a network is given; None for waves."""
        return self.mel if self.representation == "logmel" else None

    @property
    def normal(self) -> Normal:
        """Mean and deviation of inputs: as stated, as a network's card says, or of the training set."""
        if self._normal is None:
            self._normal = normal_of(self.train_set, self.given_mel, self.seed)
        return self._normal

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one evaluation view: (1, F, T) or (1, L)."""
        return (1, self.length) if self.given_mel is None else (1, self.mel.mels, self.mel.frames(self.length))

    def check_sets(self, sets: Sequence[ClipSet]) -> None:
        odd = next((part.sample_rate for part in sets if part.sample_rate != self.sample_rate), None)
        if odd is not None:
            raise UserError(f"these recordings have {odd} samples a second, not {self.sample_rate}")
        for part in sets:
            part.level = self.level

    def use_views(self, views: Views | None) -> None:
        if views is not None and not isinstance(views, AudioViews):
            raise UserError("these views are not of audio; choose views=audio, or views=audio_wave for waves")
        if views is not None:
            DeviceAudioViews(views, self.given_mel, Normal(), self.seed, 1)  # refuses what waves cannot have
        self.views, self._drawer = views, None

    def _drawn_by(self) -> DeviceAudioViews:
        if self._drawer is None:
            assert isinstance(self.views, AudioViews)
            self._drawer = DeviceAudioViews(self.views, self.given_mel, self.normal, self.seed, 1)
        return self._drawer

    def place(self, clips: ClipSet, device: torch.device) -> ClipSet:
        """Clips in memory on the GPU, when there is one and they fit: then a batch costs no transfer."""
        if device.type != "cuda" or self.resident is False or not isinstance(clips, ArrayClips):
            return clips
        fits = clips.samples.numel() * clips.samples.element_size() < RESIDENT_BYTES
        return clips.to(device) if fits or self.resident is True else clips

    # ---- fetching and views

    def train_fetch(self, clips: ClipSet) -> ClipFetch:
        assert isinstance(self.views, AudioViews)
        drawer = DeviceAudioViews(self.views, self.given_mel, Normal(), self.seed, len(clips))
        return ClipFetch(clips, self.seed, drawer.partners)  # of the very clips that are trained on

    def eval_fetch(self, clips: ClipSet) -> ClipFetch:
        return ClipFetch(clips)

    def training_views(self, raw: RawBatch) -> Drawn:
        assert self.views is not None
        x, lengths, others = raw.items
        return list(self._drawn_by()(x, lengths, raw.indices, raw.epoch, others)), self.views.roles()

    def evaluation_views(self, raw: RawBatch) -> Drawn:
        return [AudioEvalView(self.length, self.given_mel, self.normal)(raw.items.x, raw.items.lengths)[0]], ()

    def padding_views(self, device: torch.device) -> list[Tensor]:
        return [torch.zeros(1, *self.shape, device=device)]

    def weak_views(self, scale: tuple[float, float]) -> AudioViews:
        """One random window at a random place, at most 6 dB louder or softer, with nothing mixed in or hidden."""
        return AudioViews(AudioView(self.length, crop=scale))

    def beyond_view(self, rows: Mapping[Split, Tensor]) -> tuple[int, str]:
        """Recordings that are longer than a view, or than what is read of a file."""
        lengths = torch.cat([self._split(split).whole_lengths(some) for split, some in rows.items()])
        longest, most = int(lengths.max()), min(self._split(split).most for split in rows)
        fixes = [f"data.length={longest}"] if longest > self.length else []
        fixes += [f"data.seconds={-(-longest // self.sample_rate)}"] if longest > most else []
        return int((lengths > min(self.length, most)).sum()), f"give {' '.join(fixes)}"

    # ---- what recordings are compared with, told of and shown as

    def naive_features(self, split: Split, indices: Tensor | None = None) -> Tensor:
        """(N, 2 mels): mean and deviation over time of each band, of what the evaluation view holds of a clip."""
        found = []
        for raw in self.each(split, indices):
            x, lengths = raw.items.x, raw.items.lengths
            first = ((lengths - self.length) // 2).clamp(min=0)
            kept = lengths.clamp(max=self.length)
            at = (first.unsqueeze(1) + torch.arange(min(self.length, x.shape[1]))).clamp(max=x.shape[1] - 1)
            found.append(naive.mel_statistics(x.gather(1, at), kept, self.mel))
        return torch.cat(found)

    def card(self) -> dict[str, Any]:
        """Rate, length, representation and normalisation; the last is left out before any recording was looked at."""
        card: dict[str, Any] = {"modality": self.modality, "sample_rate": self.sample_rate, "length": self.length}
        card |= {} if self.level is None else {"level": self.level}
        card["representation"] = self.representation
        if self.representation == "logmel":
            mel = self.mel
            card |= {"mels": mel.mels, "window": mel.window, "hop": mel.hop, "low": mel.low, "high": mel.high}
        if self._normal is not None or self._sets is not None:
            card |= {"mean": [self.normal.mean], "std": [self.normal.std]}
        return card

    def fed_as(self, card: dict[str, Any]) -> None:
        """Normalised as in its training; what the data state themselves stays."""
        if self._normal is None and card.get("mean") is not None and card.get("std") is not None:
            self._normal, self._drawer = _stated(card["mean"], card["std"]), None

    def check_network(self, backbone: nn.Module) -> None:
        """Refuse a network that cannot take such inputs, and one of tokens that is made for another size of them."""
        like = next(backbone.parameters(), torch.empty(0))
        if like.is_meta or isinstance(like, nn.parameter.UninitializedParameter):
            return
        try:
            with evaluating(backbone), torch.no_grad():
                backbone(torch.zeros(2, *self.shape).to(like))
        except (RuntimeError, ValueError, AssertionError, UserError) as error:
            what, fix = "log-mels (1, bands, frames)", "mel_convnet"
            if self.representation == "wave":
                what, fix = "waves (1, samples)", "wave_convnet"
            why = str(error).splitlines()[0][:160]
            raise UserError(
                f"this network does not take {what} = {self.shape} ({why}); choose backbone={fix}, or other data.length"
            ) from error
        if has_tokens(backbone):
            tokens = token_encoder(backbone)
            own = tuple(places * side for places, side in zip(tokens.grid, tokens.strides, strict=True))
            if own != self.shape[1:]:  # what masked methods hide is counted on this grid
                fix = f"set backbone.length={self.length}"
                if len(own) == 2:
                    fix = f"choose backbone=vit_mel, or set backbone.image_size={list(self.shape[1:])}"
                raise UserError(f"this network takes inputs of shape {own}, and the data give {self.shape[1:]}; {fix}")

    def show(self, item: Tensor) -> Tensor:
        """A wave or a log-mel as a picture, bytes (H, W, 3)."""
        return show(item).permute(1, 2, 0).contiguous()


def _stated(mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Normal | None:
    """A stated mean and deviation, of which a card has a list each."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UserError("data.mean and data.std go together; give both, or none for those of the training set")
    pair = [list(value) if isinstance(value, Sequence) else [value] for value in (mean, std)]
    if any(len(values) != 1 for values in pair):
        raise UserError(f"data.mean={pair[0]} and data.std={pair[1]} are one number each for audio")
    return Normal(float(pair[0][0]), float(pair[1][0]))
