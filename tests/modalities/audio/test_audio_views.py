"""Each view against a loop over clips in float64, its draws, and that neither batch nor order matter."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.draw import (
    AudioView,
    AudioViews,
    LocalAudioView,
    draw_noise,
    draw_partners,
    draw_view,
)
from ssl_lightning.modalities.audio.logmel import LogMel, Normal
from ssl_lightning.modalities.audio.resample import LOBES
from ssl_lightning.modalities.audio.views import AudioEvalView, DeviceAudioViews
from tests.modalities.image.test_draw import kolmogorov_smirnov

MEL = LogMel(sample_rate=2000, mels=8, window=0.02, hop=0.01, low=20.0)  # 20 samples a frame
NORMAL = Normal(-2.0, 3.0)
LENGTHS = [500, 130, 260, 1]
EVERYTHING: dict[str, Any] = {
    "crop": (0.5, 1.0), "speed": (0.8, 1.25), "gain": (-6, 6), "noise_p": 0.6, "noise_snr": (0, 20), "mix_p": 0.7,
    "resize_p": 0.7, "time_masks": 2, "time_mask": 0.4, "freq_masks": 1, "freq_mask": 0.5,
}  # fmt: skip


def clips(lengths: list[int] | None = None) -> tuple[Tensor, Tensor]:
    n = torch.tensor(lengths or LENGTHS)
    x = torch.randn(len(n), int(n.max()), dtype=torch.float64) * 0.3
    return torch.where(torch.arange(x.shape[1]) < n[:, None], x, 7.0), n  # what lies behind a clip must never be seen


def sampled(x: list[float], at: float, speed: float, plain: bool) -> float:
    if plain:
        return x[int(at)] if 0 <= at < len(x) else 0.0
    cut, total = min(1.0, 1 / speed), 0.0
    for k, value in enumerate(x):
        t = cut * (at - k)
        if abs(t) < LOBES:
            total += (
                cut * value * (math.sin(math.pi * t) / (math.pi * t) if t else 1.0) * math.cos(math.pi * t / 16) ** 2
            )
    return total


def cut(x: list[float], view: AudioView, share: float, start: float, place: float, speed: float) -> tuple[Any, ...]:
    count = max(1, min(view.length, math.floor(share * min(len(x) / speed, view.length))))
    begin = math.floor(start * (max(0, math.floor(len(x) - count * speed)) + 1))
    first = math.floor(place * (view.length - count + 1))
    plain = view.speed == (1.0, 1.0)
    wave = [sampled(x, begin + j * speed, speed, plain) for j in range(count)]
    return [0.0] * first + wave + [0.0] * (view.length - first - count), first, count


def line(values: Tensor, left: float, width: float) -> Tensor:
    """A line resized by its definition: the window [left, left + width) to as many places; outside are zeros."""
    size = len(values)
    step, out = width / size, []
    for i in range(size):
        centre = left + (i + 0.5) * step
        weights = [max(0.0, 1 - abs(k + 0.5 - centre) / max(step, 1.0)) for k in range(-3 * size, 4 * size)]
        inside = sum(w * float(v) for w, v in zip(weights[3 * size : 4 * size], values, strict=True))
        out.append(inside / sum(weights))
    return torch.tensor(out, dtype=torch.float64)


def by_hand(
    x: Tensor, other: Tensor | None, view: AudioView, place: int, seed: int, epoch: int, index: int, mel: LogMel | None
) -> Tensor:
    """One view of one clip (n,), as its documentation says, on Python's numbers."""
    u = uniform(seed, epoch, torch.tensor([index]), 2 * place, 80)[0].double().tolist()[2:]

    def within(pair: tuple[float, float], k: int) -> float:
        return pair[0] + (pair[1] - pair[0]) * u[k]

    speed = math.exp(within((math.log(view.speed[0]), math.log(view.speed[1])), 2))
    samples, first, count = cut(x.tolist(), view, within(view.crop, 0), u[1], u[3] if view.shift else 0.0, speed)
    wave = torch.tensor(samples, dtype=torch.float64) * 10 ** (within(view.gain, 4) / 20)
    if u[5] < view.noise_p:
        power = float(wave[first : first + count].square().mean())
        noise = draw_noise(place, seed, epoch, torch.tensor([index]), view.length)[0].double()
        wave = wave + noise * math.sqrt(power / 10 ** (within(view.noise_snr, 6) / 10))
    y = wave if mel is None else mel(wave[None])[0]
    if other is not None and u[7] < view.mix_p:
        second = torch.tensor(
            cut(other.tolist(), view, 1.0, u[9], u[10] if view.shift else 0.0, 1.0)[0], dtype=torch.float64
        )
        part = view.mix * u[8]
        if mel is None:
            y = (1 - part) * y + part * second
        else:
            y = ((1 - part) * y.exp() + part * mel(second[None])[0].exp()).log()
    y = (y - NORMAL.mean) / NORMAL.std
    size = y.shape[-1]
    hop = 1 if mel is None else mel.hop_samples
    begin, end = first / hop, (first + count) / hop
    if u[11] < view.resize_p:
        height, width = y.shape
        edges = []
        for length, canvas, scale, where in (
            (height, view.canvas[0], within(view.freq_scale, 14), u[15]),
            (width, view.canvas[1], within(view.time_scale, 12), u[13]),
        ):
            wide = length * min(scale, canvas)
            edges.append((where * (canvas * length - wide) - (canvas - 1) / 2 * length, wide))
        y = torch.stack([line(column, *edges[0]) for column in y.T], 1)
        y = torch.stack([line(row, *edges[1]) for row in y])
        begin, end = ((edge - edges[1][0]) * size / edges[1][1] for edge in (begin, end))
    begin = min(max(math.floor(begin), 0), size - 1)
    end = max(min(math.ceil(end), size), begin + 1)
    for k in range(view.time_masks):
        long = math.floor(u[16 + 2 * k] * (math.floor(view.time_mask * (end - begin)) + 1))
        at = begin + math.floor(u[17 + 2 * k] * (end - begin - long + 1))
        y[..., at : at + long] = 0
    for k in range(view.time_masks, view.time_masks + view.freq_masks):
        bands = y.shape[0]
        long = math.floor(u[16 + 2 * k] * (math.floor(view.freq_mask * bands) + 1))
        at = math.floor(u[17 + 2 * k] * (bands - long + 1))
        y[at : at + long] = 0
    return y


ONE_BY_ONE: list[dict[str, Any]] = [
    {"gain": (0, 0), "crop": (1, 1)},
    {"gain": (0, 0), "shift": False},
    {"speed": (0.7, 1.4)},
    {"noise_p": 1.0},
    {"mix_p": 1.0, "mix": 1.0},
    {"time_masks": 3, "time_mask": 0.9},
    {"resize_p": 1.0},
    {"freq_masks": 2},
    EVERYTHING,
]
WAVES = ("resize_p", "freq_masks")


@pytest.mark.parametrize("options", ONE_BY_ONE, ids=lambda options: "+".join(options))
@pytest.mark.parametrize("logmel", [True, False])
def test_against_a_loop_over_clips(options: dict[str, Any], logmel: bool) -> None:
    if not logmel:
        options = {key: value for key, value in options.items() if key not in WAVES}
    view = AudioView(200, **options)
    views = AudioViews(view, local=LocalAudioView(200, part=0.5, multiple=20, **options))
    engine = DeviceAudioViews(views, MEL if logmel else None, NORMAL, seed=5, count=1000)
    (x, n), other = clips(), clips([90, 400, 1, 230])
    indices = torch.tensor([3, 10**6, 17, 0])
    for epoch in (0, 1):
        mixing = [other] * len(engine.partners(indices, epoch))
        found = engine(x, n, indices, epoch, mixing)
        for place, (result, kind) in enumerate(zip(found, views.list(), strict=True)):
            assert result.shape == ((4, 1, 8, kind.length // 20) if logmel else (4, 1, kind.length))
            for i, index in enumerate(indices.tolist()):
                second = other[0][i, : other[1][i]] if mixing else None
                mel = MEL if logmel else None
                expected = by_hand(x[i, : n[i]], second, kind, place, 5, epoch, index, mel)
                torch.testing.assert_close(result[i, 0], expected, rtol=0, atol=1e-9)


def test_float32_is_near_float64() -> None:
    engine = DeviceAudioViews(AudioViews(AudioView(200, **EVERYTHING)), MEL, NORMAL, 1, 100)
    (x, n), other, indices = clips(), clips(), torch.arange(4)
    exact = engine(x, n, indices, 2, [other])[0]
    found = engine(x.float(), n, indices, 2, [(other[0].float(), other[1])])[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-3)


def test_a_view_does_not_depend_on_its_batch() -> None:
    views = AudioViews(AudioView(200, count=2, **EVERYTHING))
    engine = DeviceAudioViews(views, MEL, NORMAL, 5, 50)
    (x, n), other = clips([400] * 6), clips([300] * 6)
    indices = torch.tensor([4, 9, 2, 33, 7, 5])
    whole = engine(x, n, indices, 3, [other, other])
    order = torch.tensor([5, 0, 3])
    longer = torch.nn.functional.pad(x[order], (0, 123), value=9.0)
    part = (other[0][order], other[1][order])
    some = engine(longer, n[order], indices[order], 3, [part, part])
    for a, b in zip(whole, some, strict=True):
        torch.testing.assert_close(a[order], b, rtol=0, atol=1e-12)
    again, other_epoch = engine(x, n, indices, 3, [other] * 2), engine(x, n, indices, 4, [other] * 2)
    assert torch.equal(whole[0], again[0])
    assert not torch.allclose(whole[0], other_epoch[0])
    assert not torch.allclose(whole[0], whole[1])


def test_partners_are_of_the_whole_set_and_depend_on_the_clip_alone() -> None:
    rows = draw_partners(1, 5000, 3, 2, torch.arange(20_000))
    assert rows.min() >= 0
    assert rows.max() < 5000
    assert kolmogorov_smirnov(rows.double(), torch.rand(20_000) * 5000) < 1
    assert torch.equal(draw_partners(1, 5000, 3, 2, torch.tensor([70, 4])), rows[[70, 4]])
    engine = DeviceAudioViews(AudioViews(AudioView(9), AudioView(9, mix_p=1.0)), None, NORMAL, 3, 5000)
    (found,) = engine.partners(torch.tensor([70, 4]), 2)
    assert torch.equal(found, rows[[70, 4]])
    with pytest.raises(UserError, match="0 batches to mix in, where 1 views mix"):
        engine(torch.zeros(1, 9), torch.tensor([9]), torch.tensor([0]), 0)


def test_how_the_draws_are_spread() -> None:
    view = AudioView(100, crop=(0.3, 0.9), speed=(0.5, 2.0), gain=(-12, 3), noise_p=0.3, mix_p=0.8, mix=0.4)
    draws, u = draw_view(view, 1, 7, 3, torch.arange(4000)), torch.rand(4000)
    for found, wanted in (
        (draws.share, 0.3 + 0.6 * u),
        (draws.speed.log2(), 2 * u - 1),
        (20 * draws.gain.log10(), 15 * u - 12),
        (draws.start, u),
        (draws.place, u),
        (draws.mix[draws.mix > 0], 0.4 * u),
        (-20 * draws.noise[draws.noise > 0].log10(), 10 + 30 * u),
        (draws.time[0], 0.6 + 0.9 * u),
        (draws.freq[1], u),
    ):
        assert kolmogorov_smirnov(found, wanted) < 1
    assert abs(float((draws.noise > 0).double().mean()) - 0.3) < 0.03
    assert abs(float((draws.mix > 0).double().mean()) - 0.8) < 0.03
    noise = draw_noise(0, 1, 2, torch.arange(40), 101)
    assert kolmogorov_smirnov(noise.flatten(), torch.randn(4040)) < 1
    assert torch.equal(noise[:, :60], draw_noise(0, 1, 2, torch.arange(40), 60))


def test_what_is_no_view() -> None:
    wrong: list[dict[str, Any]] = [
        {"crop": (0, 1)}, {"crop": (0.5, 1.2)}, {"speed": (0, 1)}, {"gain": (3, -3)}, {"mix": 1.2}, {"noise_p": -0.1},
        {"time_masks": 17}, {"length": 0}, {"count": 0}, {"canvas": (0.5, 1)}, {"gain": (1,)},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(UserError):
            AudioView(**{"length": 100, **options})
    with pytest.raises(UserError, match="no frequencies"):
        DeviceAudioViews(AudioViews(AudioView(100, freq_masks=1)), None, NORMAL, 0, 1)
    for part, multiple in ((1.0, 1), (0.9, 100)):
        with pytest.raises(UserError, match="local view"):
            LocalAudioView(100, part=part, multiple=multiple)
    assert LocalAudioView(16000, multiple=160).length == 6880
    assert AudioViews(AudioView(10, count=2), local=LocalAudioView(10)).roles() == ("global", "global", "local")


@pytest.mark.parametrize("mel", [MEL, None])
def test_the_evaluation_view(mel: LogMel | None) -> None:
    x, n = clips()
    y, lengths = AudioEvalView(200, mel, NORMAL)(x, n)
    for i, length in enumerate(LENGTHS):
        clip = x[i, :length]
        begin = (length - 200) // 2
        if length >= 200:
            crop = clip[begin : begin + 200]
        else:
            crop = torch.nn.functional.pad(clip, (-begin, 200 - length + begin))
        expected = crop[None] if mel is None else mel(crop[None])[0]
        torch.testing.assert_close(y[i, 0], ((expected + 2) / 3).view(y[i, 0].shape))
    assert lengths.tolist() == [y.shape[-1]] * 4
    whole, lengths = AudioEvalView(None, mel, NORMAL)(x, n)
    for i, length in enumerate(LENGTHS):
        assert int(lengths[i]) == (length if mel is None else max(1, length // 20))
        alone = x[i : i + 1, :length]
        expected = ((alone if mel is None else mel(alone)) + 2) / 3
        some = whole[i, 0, ..., : int(lengths[i])]
        torch.testing.assert_close(some, expected[0, ..., : some.shape[-1]].view(some.shape), rtol=0, atol=1e-9)


def test_strength_is_one_knob_for_sound() -> None:
    base = AudioView(64, count=2, crop=(0.6, 1.0), gain=(-6, 6), speed=(0.5, 2.0), noise_p=0.4, mix_p=0.8, time_masks=1)
    local = LocalAudioView(64, part=0.5, crop=(0.3, 0.5))
    (weak, _, small), strong = (AudioViews(base, local=local, strength=s).list() for s in (0.5, 2.0))
    assert (weak.crop, weak.gain, weak.noise_p, weak.mix) == ((0.8, 1.0), (-3.0, 3.0), 0.2, 0.2)
    assert weak.speed == pytest.approx((0.5**0.5, 2**0.5))
    assert (strong[0].crop, strong[0].mix_p) == ((pytest.approx(0.2), 1.0), 1.0)
    assert (small.length, small.crop) == (32, (0.4, 0.5))
    assert AudioViews(base, local=local, strength=1.0).list() == AudioViews(base, local=local).list()
    assert AudioViews(base, local=local).list()[0] is base
    quiet = AudioViews(base, strength=0.0).list()[0]
    x, n, rows = torch.randn(3, 64), torch.full((3,), 64), torch.arange(3)
    normal = Normal(0.0, 1.0)
    got = DeviceAudioViews(AudioViews(quiet), None, normal, 0, 3)(x, n, rows, 1)
    torch.testing.assert_close(got[0][:, 0], x, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="is out of range; give 0 to 4"):
        AudioViews(base, strength=-1.0)
