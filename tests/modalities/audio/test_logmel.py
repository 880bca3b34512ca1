"""Log-mels against a plain DFT and triangles by the formula in float64; the statistic; the weights of a resize."""

import math

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.clips import ArrayClips
from ssl_lightning.modalities.audio.logmel import LogMel, Normal, normal_of, stretch_weights

SMALL = LogMel(sample_rate=1000, mels=6, window=0.02, hop=0.008, low=20.0)


def naive(x: Tensor, mel: LogMel) -> Tensor:
    """(L,) -> (F, T): every sum written out."""
    points, window, hop = mel.points, mel.window_samples, mel.hop_samples
    edges = [
        700 * (10 ** (m / 2595) - 1)
        for m in torch.linspace(
            2595 * math.log10(1 + mel.low / 700), 2595 * math.log10(1 + mel.top / 700), mel.mels + 2
        ).double().tolist()
    ]  # fmt: skip
    out = torch.zeros(mel.mels, len(x) // hop, dtype=torch.float64)
    before = (points - hop) // 2
    for t in range(out.shape[1]):
        frame = []  # the window lies in the middle of the transform's points
        for n in range(window):
            at = t * hop - before + (points - window) // 2 + n
            value = float(x[at]) if 0 <= at < len(x) else 0.0
            frame.append(value * 0.5 * (1 - math.cos(2 * math.pi * n / window)))
        for k in range(points // 2 + 1):
            re = sum(v * math.cos(2 * math.pi * k * n / points) for n, v in enumerate(frame))
            im = sum(v * math.sin(2 * math.pi * k * n / points) for n, v in enumerate(frame))
            hertz = k * mel.sample_rate / points
            for f in range(mel.mels):
                rising = (hertz - edges[f]) / (edges[f + 1] - edges[f])
                falling = (edges[f + 2] - hertz) / (edges[f + 2] - edges[f + 1])
                out[f, t] += max(0.0, min(rising, falling)) * (re * re + im * im)
    return (out + mel.floor).log()


def test_against_a_plain_dft() -> None:
    x = torch.randn(2, 50, dtype=torch.float64)
    found = SMALL(x)
    assert found.shape == (2, 6, 6)
    for row, wave in zip(found, x, strict=True):
        torch.testing.assert_close(row, naive(wave, SMALL), rtol=0, atol=1e-5)  # float32 edges in the loop
    torch.testing.assert_close(SMALL(x.float()).double(), found, rtol=0, atol=1e-4)


def test_frames_and_sizes() -> None:
    mel = LogMel(8000)
    assert mel(torch.zeros(1, 8000)).shape == (1, 64, 100)
    assert mel(torch.zeros(1, 3)).shape == (1, 64, 1)
    assert mel.frame_lengths(torch.tensor([3, 80, 8079])).tolist() == [1, 1, 100]
    assert torch.equal(mel(torch.zeros(1, 800)), torch.full((1, 64, 10), math.log(1e-6)))


def test_zeros_behind_a_clip_change_none_of_its_frames() -> None:
    x = torch.randn(1, 4000)
    alone, padded = LogMel(8000)(x), LogMel(8000)(torch.nn.functional.pad(x, (0, 3000)))
    torch.testing.assert_close(padded[..., :50], alone, rtol=0, atol=1e-5)


def test_a_sine_lights_its_band() -> None:
    mel = LogMel(8000)
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)[None]
    centre = (2595 * math.log10(1 + 1000 / 700) - 92.3) / (2146.06 - 92.3) * 65 - 1
    assert abs(float(mel(wave)[0, :, 50].argmax()) - centre) <= 1


@pytest.mark.parametrize(
    "wrong", [{"hop": 0.05}, {"low": 8000.0}, {"high": 9000.0}, {"mels": 500}, {"hop": 1e-9}, {"mels": 0}]
)
def test_what_is_no_spectrogram(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        LogMel(16000, **wrong)  # type: ignore[arg-type]


def test_the_statistic_is_of_true_frames_alone() -> None:
    clips = ArrayClips.of([torch.randn(n) * 0.1 for n in (2000, 900, 4000)], 8000)
    mel = LogMel(8000, mels=16)
    whole = torch.cat([mel(clips.clip(i)[None])[0].flatten() for i in range(3)]).double()
    found = normal_of(clips, mel)
    assert found.mean == pytest.approx(float(whole.mean()), abs=1e-4)
    assert found.std == pytest.approx(float(whole.std(correction=0)), rel=1e-4)
    waves = torch.cat([clips.clip(i) for i in range(3)]).double()
    assert normal_of(clips, None).mean == 0.0
    assert normal_of(clips, None).std == pytest.approx(float(waves.square().mean().sqrt()), rel=1e-4)
    assert found.card() == {"mean": found.mean, "std": found.std}
    with pytest.raises(UserError, match="do not vary"):
        normal_of(ArrayClips.of([torch.zeros(500)], 8000), mel)
    with pytest.raises(UserError, match="above 0"):
        Normal(0.0, 0.0)


def test_weights_of_a_resize_against_their_definition() -> None:
    first = torch.tensor([0.0, 1.3, -2.5, 0.0], dtype=torch.float64)
    size = torch.tensor([9.0, 4.0, 14.0, 9.0], dtype=torch.float64)
    for to in (9, 5):
        found = stretch_weights(first, size, to, 9)
        for b in range(4):
            step = float(size[b]) / to
            for i in range(to):
                centre = float(first[b]) + (i + 0.5) * step
                whole = [max(0.0, 1 - abs(k + 0.5 - centre) / max(step, 1.0)) for k in range(-60, 70)]
                expected = [w / sum(whole) for w in whole][60:69]
                torch.testing.assert_close(found[b, i], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(stretch_weights(first, size, 9, 9)[0], torch.eye(9, dtype=torch.float64))
