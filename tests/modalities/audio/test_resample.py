"""The resampler against the sinc sum of its definition in float64, and by what becomes of sines."""

import math

import pytest
import torch
from torch import Tensor

from ssl_lightning.modalities.audio import resample as module
from ssl_lightning.modalities.audio.resample import BETA, LOBES, ROLLOFF, ZEROS, read_at, resample, resampled_length


def naive(x: Tensor, rate: int, to: int) -> list[float]:
    """Every result as a sum over all samples."""
    cut = ROLLOFF * min(1.0, to / rate)
    out = []
    for j in range(math.ceil(len(x) * to / rate)):
        total = 0.0
        for k, value in enumerate(x.double().tolist()):
            t = cut * (j * rate / to - k)
            if abs(t) <= ZEROS:
                window = float(torch.special.i0(torch.tensor(BETA * math.sqrt(1 - (t / ZEROS) ** 2)).double()))
                total += value * cut * (math.sin(math.pi * t) / (math.pi * t) if t else 1.0) * window
        out.append(total / float(torch.special.i0(torch.tensor(BETA).double())))
    return out


@pytest.mark.parametrize(("rate", "to"), [(8000, 16000), (16000, 8000), (11025, 8000), (8000, 8000)])
def test_against_the_sum_of_its_definition(rate: int, to: int) -> None:
    x = torch.randn(70)
    expected = x.double() if rate == to else torch.tensor(naive(x, rate, to), dtype=torch.float64)
    torch.testing.assert_close(resample(x, rate, to).double(), expected, rtol=0, atol=2e-6)
    assert len(expected) == resampled_length(70, rate, to)


@pytest.mark.parametrize(("rate", "to"), [(44100, 16000), (16000, 44100), (8000, 22050), (48000, 8000)])
def test_a_sine_stays_itself_and_one_above_the_band_is_gone(rate: int, to: int) -> None:
    time = torch.arange(rate // 2, dtype=torch.float64) / rate
    for share, level in ((0.3, 1.0), (0.8, 1.0), *([(1.03, 0.0), (1.7, 0.0)] if to < rate else [])):
        hertz = share * min(rate, to) / 2
        found = resample(torch.sin(2 * math.pi * hertz * time), rate, to).double()
        middle = slice(to // 10, to * 4 // 10)
        times = torch.arange(len(found), dtype=torch.float64) / to
        wanted = level * torch.sin(2 * math.pi * hertz * times)
        assert float((found - wanted)[middle].abs().max()) < 10 ** (-70 / 20)


def test_a_part_is_the_wholes() -> None:
    x, (rate, to) = torch.randn(5000), (44100, 16000)
    whole = resample(x, rate, to)
    for first, count in ((0, 10), (700, 300), (1700, len(whole) - 1700)):
        side = module.reach(rate, to)
        begins, ends = max(0, first * rate // to - side), (first + count) * rate // to + side + 1
        part = resample(x[begins:ends], rate, to, first, count, begins)
        torch.testing.assert_close(part, whole[first : first + count], rtol=0, atol=1e-6)


def test_uneven_rates_and_ends() -> None:
    assert len(resample(torch.randn(1000), 4411, 1600)) == math.ceil(1000 * 1600 / 4411)
    assert resample(torch.empty(0), 44100, 16000).shape == (0,)
    assert resample(torch.ones(1), 8000, 16000).shape == (2,)
    for chunk in (1, 1000, 10**7):  # never a matter of how many are made at a time
        monkey, module.CHUNK = module.CHUNK, chunk
        found = resample(torch.arange(50.0), 3000, 8000)
        module.CHUNK = monkey
        torch.testing.assert_close(found, resample(torch.arange(50.0), 3000, 8000), rtol=0, atol=1e-5)


def test_reading_at_speeds_against_a_loop() -> None:
    x = torch.randn(3, 60, dtype=torch.float64)
    lengths = torch.tensor([60, 33, 5])
    start = torch.tensor([2.3, -4.0, 0.0], dtype=torch.float64)
    speed = torch.tensor([1.2, 1.0, 0.7], dtype=torch.float64)
    found = read_at(x, lengths, start, speed, 40, 1.2)
    for i in range(3):
        cut = min(1.0, 1 / float(speed[i]))
        for j in range(40):
            total = 0.0
            for k in range(int(lengths[i])):
                t = cut * (float(start[i]) + j * float(speed[i]) - k)
                if abs(t) < LOBES:
                    sinc = math.sin(math.pi * t) / (math.pi * t) if t else 1.0
                    total += cut * float(x[i, k]) * sinc * math.cos(math.pi * t / 2 / LOBES) ** 2
            assert abs(total - float(found[i, j])) < 1e-12


def test_a_faster_sine_is_a_higher_one_and_does_not_alias() -> None:
    time = torch.arange(4000, dtype=torch.float64)
    waves = torch.stack((torch.sin(0.3 * time), torch.sin(0.8 * math.pi * time)))
    speed = torch.full((2,), 1.5, dtype=torch.float64)
    found = read_at(waves, torch.tensor([4000, 4000]), torch.full((2,), 100.0).double(), speed, 2000, 1.5)
    wanted = torch.sin(0.3 * (100 + 1.5 * torch.arange(2000, dtype=torch.float64)))
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=2e-3)
    assert float(found[1].abs().max()) < 0.02  # 1.2 times the highest frequency
