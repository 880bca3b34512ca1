"""Axes of charts: round ticks, numbers as people write them, and the way from a value to a place."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_POINTS = 400  # of a line; more are not seen at the width of a chart


@dataclass(frozen=True)
class Axis:
    """From values to places along one side of a chart.

    Args:
        low, high: the values at its ends, low < high; above 0 where it is logarithmic.
        start, end: the places of these, in units of the drawing.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    known: bool = True  # whether any value was there to choose the ends by
    whole: bool = False  # of steps or epochs: ticks at whole numbers alone

    def place(self, value: float) -> float:
        """Where a value lies; one that a logarithmic axis cannot show lies at its low end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values between the ends, both included where they are round."""
        found = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, wanted)
        return [value for value in found if value == round(value)] if self.whole else found


def axis(values: Iterable[float], start: float, end: float, log: bool = False, zero: bool = False) -> Axis:
    """An axis that shows all these values with a little room.

    Args:
        zero: 0 is shown, too.
    """
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return Axis(1.0, 10.0, start, end, log, known=False)
    low, high = min(finite), max(finite)
    if log:
        return Axis(low / 1.15, high * 1.15, start, end, True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-3)
    bottom = 0.0 if low >= 0.0 and low - room < 0.0 else low - room
    return Axis(bottom, high + room, start, end)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high]: about as many as wanted."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high]; with their 2 and 5 times where there are few, and round values within a decade."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) >= 3:
            break
    if len(found) < 3:
        return ticks(low, high, 4)
    return found[:: max(1, -(-len(found) // 7))]


def number(value: float | None, percent: bool = False) -> str:
    """A value for people: 4 digits, thousands by letters; shares in percent."""
    if value is None or not math.isfinite(value):
        return "-"
    if percent:
        return f"{100 * value:.1f} %"
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    if size and size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return f"{value:.4g}"


def tick_text(value: float, step: float, percent: bool = False) -> str:
    """The label of a tick, with as many digits as the step between ticks needs."""
    if value == 0:
        return "0 %" if percent else "0"
    if percent:
        value, step = 100 * value, 100 * step
    if value and (abs(value) >= 1e4 or abs(value) < 1e-3):
        return number(value) + (" %" if percent else "")
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 2
    return f"{value:.{min(digits, 6)}f}" + (" %" if percent else "")


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Places of at most about `most` points that keep the ends, and the lowest and highest of each stretch."""
    count = len(x)
    if count <= most:
        return list(range(count))
    stretches = max(1, most // 2)
    kept = {0, count - 1}
    for i in range(stretches):
        rows = range(i * count // stretches, max((i + 1) * count // stretches, i * count // stretches + 1))
        kept |= {min(rows, key=lambda row: y[row]), max(rows, key=lambda row: y[row])}
    return sorted(kept)
