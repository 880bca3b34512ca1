"""The counter-based numbers against a plain-integer reference, and their statistics."""

import pytest
import torch

from ssl_lightning.core.counter import uniform

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x %= WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB % WORD
    return x ^ x >> 31


def reference(seed: int, epoch: int, index: int, stream: int, place: int) -> float:
    key = mix(mix(mix(seed + GOLDEN) + epoch * GOLDEN) + stream * GOLDEN)
    return (mix(mix(index * GOLDEN + key) + (place + 1) * GOLDEN) >> 40) / 2**24


@pytest.mark.parametrize(("seed", "epoch", "stream"), [(0, 0, 0), (1, 7, 3), (-5, 999, 15), (2**40, 2**33, 2)])
def test_equals_unsigned_integer_arithmetic(seed: int, epoch: int, stream: int) -> None:
    indices = torch.tensor([0, 1, 2, 12_345, 2**40, -1])
    got = uniform(seed, epoch, indices, stream, 9)
    assert got.dtype == torch.float32
    expected = [[reference(seed, epoch, i, stream, j) for j in range(9)] for i in indices.tolist()]
    assert got.tolist() == expected


def test_splitmix64_known_sequence() -> None:
    # The first outputs of SplitMix64 from state 1234567, as published with the reference implementation's test vectors.
    assert [mix(1234567 + k * GOLDEN) for k in (1, 2)] == [6457827717110365317, 3203168211198807973]


def test_a_row_is_its_own_whatever_the_batch() -> None:
    indices = torch.randperm(1000)
    whole = uniform(3, 4, indices, 5, 12)
    assert torch.equal(torch.cat([uniform(3, 4, part, 5, 12) for part in indices.split(7)]), whole)
    assert torch.equal(uniform(3, 4, indices.flip(0), 5, 12).flip(0), whole)
    assert torch.equal(uniform(3, 4, indices, 5, 5), whole[:, :5])
    assert torch.equal(uniform(3, 4, indices.int(), 5, 12), whole)


@pytest.mark.parametrize("axis", ["place", "index", "epoch", "stream", "seed"])
def test_uniform_and_uncorrelated_along(axis: str) -> None:
    n = 1 << 17
    one = torch.zeros(1, dtype=torch.int64)
    u = {
        "place": lambda: uniform(0, 0, one, 0, n),
        "index": lambda: uniform(0, 0, torch.arange(n), 0, 1),
        "epoch": lambda: torch.cat([uniform(0, e, one, 0, 64) for e in range(n // 64)]),
        "stream": lambda: torch.cat([uniform(0, 0, one, s, 64) for s in range(n // 64)]),
        "seed": lambda: torch.cat([uniform(s, 0, one, 0, 64) for s in range(n // 64)]),
    }[axis]()
    u = (u if axis in ("place", "index") else u.T).flatten().double()
    assert 0 <= float(u.min()) < float(u.max()) < 1
    counts = torch.histc(u, 64, 0, 1)
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert chi_square < 121  # 63 degrees of freedom: exceeded once in 100,000
    for lag in (1, 2, 3, 8):
        a, b = u[:-lag] - 0.5, u[lag:] - 0.5
        assert abs(float((a * b).mean())) * 12 < 4.5 / len(a) ** 0.5
    assert len(u.unique()) > 0.99 * n  # no short cycle (24 bits repeat now and then)
