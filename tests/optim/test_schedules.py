"""Schedules against tables made by hand."""

import pytest

from ssl_lightning.optim.schedules import Constant, WarmupCosine, cosine


def test_warmup_and_cosine_by_table() -> None:
    schedule = WarmupCosine(warmup_epochs=2, warmup_start_lr=0.1, min_lr=0.2)
    rates = [schedule.factor(step, total_steps=25, steps_per_epoch=1, peak_lr=1.0) for step in range(25)]
    assert rates[:3] == pytest.approx([0.1, 0.55, 1.0])
    assert rates[13] == pytest.approx(0.6)  # half way from step 2 to step 24
    assert rates[24] == 0.2
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[8] == pytest.approx(0.2 + 0.8 * 0.8274303669726426)  # (1 + cos(3/11 pi)) / 2
    assert schedule.factor(25, 25, 1, 1.0) == 0.2  # the scheduler asks once more after the last step


@pytest.mark.parametrize(
    ("epochs", "total", "expected"),
    [(10, 1000, 50), (10, 300, 30), (0, 300, 0), (10, 9, 0), (0.5, 1000, 2)],
)
def test_the_warmup_is_at_most_a_tenth_of_the_run(epochs: float, total: int, expected: int) -> None:
    schedule = WarmupCosine(warmup_epochs=epochs)
    assert schedule.warmup_steps(total, steps_per_epoch=5) == expected
    rates = [schedule.factor(step, total, 5, peak_lr=0.4) for step in range(total)]
    assert rates.index(max(rates)) == expected
    assert max(rates) == 1.0
    assert rates[: expected + 1] == sorted(rates[: expected + 1])
    assert rates[expected:] == sorted(rates[expected:], reverse=True)
    assert rates[-1] == 0.0
    if expected:
        assert rates[0] * 0.4 == pytest.approx(3e-5)


def test_odd_runs() -> None:
    assert WarmupCosine().factor(0, 1, 1, 0.4) == 1.0  # one step: take it
    assert [WarmupCosine().factor(step, 2, 1, 0.4) for step in (0, 1)] == [1.0, 0.0]
    tiny = [WarmupCosine(min_lr=1.0).factor(step, 100, 10, peak_lr=1e-6) for step in range(100)]
    assert set(tiny) == {1.0}  # neither the start nor the end of the schedule is above the peak
    assert Constant().factor(7, 10, 1, 0.4) == 1.0


def test_cosine_by_table() -> None:
    """BYOL, section 3.3: tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2."""
    assert [cosine(0.996, 1.0, k, 4) for k in range(5)] == pytest.approx(
        [0.996, 0.99658578643, 0.998, 0.99941421356, 1.0], abs=1e-11
    )
    assert cosine(0.996, 1.0, 0, 4) == 0.996
    assert cosine(0.996, 1.0, 4, 4) == cosine(0.996, 1.0, 99, 4) == 1.0
    assert cosine(0.5, 0.5, 3, 7) == 0.5
