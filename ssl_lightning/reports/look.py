"""A run as the rules of `health` look at it: its curves by name, its method, and the loss of a pure guess."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

# Methods whose loss is a cross-entropy over candidates, with the number of candidates.
TWO_VIEWS = ("simclr",)  # all other views of the batch: 2N - 1
BATCH = ("nnclr",)  # the batch: N
QUEUE = ("moco", "moco_v1")  # the right key and the queue: 1 + K
FIXED = {"rotation": 4, "relative_position": 8}
# Methods that predict one view's vectors from another's, without negatives.
PREDICTING = ("byol", "simsiam", "data2vec", "ijepa")
CENTERED = ("dino", "ibot", "dinov2")
MASKED = ("mae", "simmim")


@dataclass(frozen=True)
class Look:
    """See `health.findings` for the arguments."""

    rows: Sequence[Mapping[str, float]]
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    about: Mapping[str, Any]

    def curve(self, name: str) -> list[float]:
        """The values of a metric, in order."""
        return [row[name] for row in self.rows if name in row]

    def last(self, name: str) -> float | None:
        """The last value of a metric, or None."""
        values = self.curve(name)
        return values[-1] if values else None

    @cached_property
    def loss(self) -> list[float]:
        return self.curve("train/loss")

    @cached_property
    def method(self) -> str:
        choices = self.config.get("choices")
        name = self.results.get("method") or (choices.get("method") if isinstance(choices, Mapping) else None)
        return str(name or "")

    @property
    def done(self) -> bool:
        return bool(self.results)

    def number(self, *keys: str) -> float | None:
        """A number of the config, by its place."""
        node: Any = self.config
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return float(node) if isinstance(node, int | float) and not isinstance(node, bool) else None

    @cached_property
    def batch(self) -> float | None:
        """Items of a step over all devices."""
        size = self.number("data", "batch_size")
        world = self.about.get("world")
        return size * (world if isinstance(world, int) else 1) if size else None

    @cached_property
    def guess(self) -> tuple[float, str] | None:
        """(the loss of a network that cannot tell the candidates apart, how it comes about), where theory says it."""
        count: float | None = None
        if self.method in TWO_VIEWS:
            count = 2 * self.batch - 1 if self.batch else None
        elif self.method in BATCH:
            count = self.batch
        elif self.method in QUEUE and (queue := self.number("method", "queue_size")):
            count = queue + 1
        elif self.method == "dino":
            count = self.number("method", "projector", "out_dim")
        elif self.method in FIXED:
            count = FIXED[self.method]
        return (math.log(count), f"log({count:.0f})") if count and count > 1 else None

    def part(self, values: Sequence[float], start: float, end: float) -> float:
        """The median of a stretch of a curve, from share `start` to share `end` of its length."""
        first, last = int(start * len(values)), max(int(end * len(values)), int(start * len(values)) + 1)
        return median(values[first:last])

    def noise(self, share: float) -> float:
        """How far two accuracies on the test items may lie apart by chance (two standard errors)."""
        items = self.about.get("test_count")
        count = items if isinstance(items, int) and items > 0 else 1000
        return 2 * math.sqrt(max(share * (1 - share), 0.25 / count) / count)

    def baseline(self, name: str, key: str) -> float | None:
        """A number of results' baselines."""
        baselines = self.results.get("baselines")
        found = baselines.get(name) if isinstance(baselines, Mapping) else None
        value = found.get(key) if isinstance(found, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def result(self, key: str) -> float | None:
        """A number of the results."""
        value = self.results.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
