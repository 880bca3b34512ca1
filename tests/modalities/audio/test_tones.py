"""Generated melodies, the naive baselines on them, and pictures."""

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.logmel import LogMel, stretch_weights
from ssl_lightning.modalities.audio.naive import mel_statistics, naive, stretched_mel
from ssl_lightning.modalities.audio.show import show
from ssl_lightning.modalities.audio.tones import CLASSES, GROUPS, render, tones

MEL = LogMel(8000, mels=24)


def test_clips_are_a_function_of_their_index() -> None:
    whole = render(torch.arange(20), "train")
    some = render(torch.tensor([17, 4]), "train")
    assert torch.equal(whole.waves[[17, 4]], some.waves)
    assert not torch.allclose(render(torch.tensor([4]), "test").waves, some.waves[1])
    assert not torch.allclose(render(torch.tensor([4]), "train", seed=1).waves, some.waves[1])
    assert float(whole.waves.abs().max()) <= 0.9001
    assert bool((whole.waves.abs().amax(1) > 0.01).all())
    for wave, n in zip(whole.waves, whole.lengths.tolist(), strict=True):
        assert not bool(wave[n:].any())


def test_sets_have_labels_and_groups_of_their_own() -> None:
    train, test = tones(40), tones(30, "test")
    assert train.classes == CLASSES
    assert len(train.group_names) == GROUPS
    assert torch.equal(train.labels, torch.arange(40) % 8)
    assert train.labelled
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    with pytest.raises(UserError, match="4000 Hz"):
        tones(3, sample_rate=100)


def nearest(train: torch.Tensor, y: torch.Tensor, test: torch.Tensor, z: torch.Tensor) -> float:
    mean, std = train.mean(0), train.std(0) + 1e-6
    return float((y[torch.cdist((test - mean) / std, (train - mean) / std).argmin(1)] == z).double().mean())


def test_averages_over_time_know_the_timbre_and_not_the_melody() -> None:
    train, test = tones(320), tones(96, "test")
    found = {}
    for name in ("mel_statistics", "stretched_mel"):
        a, b = (naive(name)(*clips.fetch(torch.arange(len(clips)))[:2], MEL) for clips in (train, test))
        found[name] = [nearest(a, train.labels // k % 2, b, test.labels // k % 2) for k in (4, 2, 1)]
    assert found["mel_statistics"][0] < 0.65  # rising or falling
    assert found["mel_statistics"][1] > 0.65  # full or hollow
    assert found["stretched_mel"][0] > 0.8


def test_baselines_are_of_true_frames_alone() -> None:
    clips = tones(4, seconds=0.5)
    x, lengths, _, _ = clips.fetch(torch.arange(4))
    for i in range(4):
        one = MEL(clips.clip(i)[None])[0].double()
        wanted = torch.cat((one.mean(1), one.std(1, correction=0)))
        torch.testing.assert_close(mel_statistics(x, lengths, MEL)[i].double(), wanted, rtol=0, atol=1e-4)
        size = torch.tensor([float(one.shape[1])], dtype=torch.float64)
        weights = stretch_weights(torch.zeros(1).double(), size, 16, one.shape[1])[0]
        wanted = one @ (weights / weights.sum(1, keepdim=True)).T
        found = stretched_mel(x, lengths, MEL, 16)[i].double()
        torch.testing.assert_close(found, wanted.flatten(), rtol=0, atol=1e-4)
        assert float(found.min()) >= float(one.min()) - 1e-4
        assert float(found.max()) <= float(one.max()) + 1e-4
    with pytest.raises(UserError, match="mel_statistics, stretched_mel"):
        naive("x")


def test_pictures() -> None:
    clips = tones(2)
    mel = MEL(clips.clip(0)[None])
    picture = show(mel)
    assert picture.dtype == torch.uint8
    assert picture.shape[:2] == (3, 128)
    assert 128 <= picture.shape[2] <= 384
    low = torch.zeros(1, 10, 20)
    low[0, 0] = 1.0  # the lowest band
    shown = show(low).float().sum(0)
    assert shown[-1].mean() > shown[0].mean() + 300
    wave = show(clips.clip(0)[None], 140, 200)
    assert wave.shape == (3, 140, 200)
    assert 0 < float((wave[0] < 128).double().mean()) < 1
    for strange in (torch.zeros(1, 5), torch.ones(1, 300), torch.zeros(1, 4, 3), torch.randn(1, 300, 900)):
        assert show(strange).shape[1] == 128
