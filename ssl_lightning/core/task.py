"""`Task`: what labels mean. Head, loss, metrics, and how outputs are told to people; one file each in `tasks/`.

Nothing here knows the modality, the network or the trainer. `stage=linear`, `stage=finetune`, `stage=knn` and the end
of a pretraining take any task. Shapes: B items, D features, K outputs of an item, T targets of an item.

A task whose outputs are sequences (transcription by CTC, say) fits as it is: it overrides `features` to read the tokens
of a network, its `head` maps `core.batch.Padded` (B, L, D) to `Padded` (B, L, K), its targets are `Padded` of symbols,
and `known`, `loss`, `measure` and `predict` read the lengths of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather_objects
from ssl_lightning.core.protocols import out_dim

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

# How `data.labels` is read: a class, several labels, numbers, or a text, which may be another for each item.
# Of tasks that say where things are: boxes with a class each, or the class of each pixel.
Reads = Literal["classes", "several", "numbers", "texts", "boxes", "masks"]
CLASSES: Reads = "classes"
TEXTS: Reads = "texts"
BOXES: Reads = "boxes"
MASKS: Reads = "masks"
Reduction = Literal["mean", "sum"]


def known(labels: Tensor) -> Tensor:
    """(B,) bool, which items have a label: of classes (B,) those from 0 on, of targets (B, T) those without NaN."""
    return labels >= 0 if labels.ndim == 1 else ~labels.isnan().any(dim=1)


def computed(metrics: MetricCollection, together: bool = False) -> dict[str, float]:
    """The values of metrics on the CPU: of what this rank has seen, or, `together`, of what all have seen.

    torchmetrics' own way from rank to rank waits for ever where one of them has seen nothing.
    """
    found = dict(metrics.items())
    mine = {key: (m._update_count, {s: getattr(m, s) for s in m._reductions}) for key, m in found.items()}
    ranks = gather_objects(mine) if together else [mine]
    for key, metric in found.items():
        metric._update_count, metric._to_sync = max(rank[key][0] for rank in ranks), False
        for state, reduction in metric._reductions.items() if len(ranks) > 1 else ():
            parts = [rank[key][1][state] for rank in ranks if rank[key][0]] or [getattr(metric, state)]
            if isinstance(parts[0], list):
                setattr(metric, state, list(chain(*parts)))
                continue
            assert callable(reduction), f"{key} says with dist_reduce_fx how {state} of several ranks become one"
            setattr(metric, state, reduction(torch.stack(parts)))
    return {key: float(metric.compute()) for key, metric in found.items()}


class Task(nn.Module):
    """Base of all tasks. A task of your own says `main`, `loss` and `metrics`, and what differs of the rest.

    Attributes:
        reads: how the data's labels are read.
        main: the metric that settings are chosen by, a key of `metrics()`.
        higher: whether more of it is better.
        worst: what stands for the main metric of a training that diverged.
        beside: the metrics told of baselines; () = all.
        bounded: whether an item's pull on a head is bounded, as that of cross-entropy is. Squared errors grow with the
            features' length; a linear layer on frozen ones is then given shorter ones, so that it does not diverge.
        takes: what it takes, in words, for the line that refuses other labels.
        chance: the name of the best constant answer among the baselines; "" where it is not told.
        stages: the stages that take it; () = all.
        whole_items: training views hold whole items, whatever `stage.crop_scale`, and a line tells how many do not fit.
            There are no naive features.
        listed_in: the file in a run's folder that lists what was said of each test item; "" = none.
        names: the K classes or targets, known after `prepare`.
        node: the config node that builds it, where a config does.

    >>> class Ordered(Task):
    ...     reads, main = "numbers", "mae"  # and `loss` and `metrics`
    """

    reads: ClassVar[Reads] = CLASSES
    main: ClassVar[str]
    higher: ClassVar[bool] = True
    worst: ClassVar[float] = 0.0
    beside: ClassVar[tuple[str, ...]] = ()
    bounded: ClassVar[bool] = False
    takes: ClassVar[str] = "one class"
    chance: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = ()
    whole_items: ClassVar[bool] = False
    listed_in: ClassVar[str] = ""
    names: tuple[str, ...] = ()
    node: dict[str, Any] | None = None

    # ---- what is learned from

    def prepare(self, names: Sequence[str], targets: Any) -> Self:
        """Take the names of classes or targets, and what statistics of the training targets (N, ...) it needs.

        Called once, before `head`, with the targets of the training items whose labels may be used.
        """
        self.names = tuple(names)
        return self

    def check(self, targets: Any, split: str, noun: str) -> None:
        """Refuse labels that are not what it takes, by a UserError."""

    def check_network(self, backbone: nn.Module, view: Any, targets: Mapping[str, Any], noun: str) -> None:
        """Refuse a network whose outputs cannot hold the targets, before it is fine-tuned.

        `view`: one item as the network is given it, (1, ...); `targets`: those of "training" and of "test".
        """

    def known(self, targets: Any) -> Tensor:
        """(B,) bool: which items have a target. A batch may hold some without, which only fill up a rank."""
        return known(targets)

    # ---- what is learned

    def features(self, backbone: nn.Module, x: Any) -> Any:
        """What the head reads of items: (B, D) here, the network's features."""
        return backbone(x)

    def head(self, in_dim: int) -> nn.Module:
        """Features (B, in_dim) -> outputs (B, K): a linear layer that begins near 0."""
        head = nn.Linear(in_dim, len(self.names))
        nn.init.trunc_normal_(head.weight, std=0.01)  # the first gradients leave the backbone in peace
        nn.init.zeros_(head.bias)
        return head

    def head_of(self, backbone: nn.Module) -> nn.Module:
        """The head for this backbone; one that reads more of it than its features overrides this."""
        return self.head(out_dim(backbone))

    def loss(self, outputs: Any, targets: Any, smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
        """The loss of outputs (B, K), mean or sum over items; `smoothing`: share of each target spread over all."""
        raise NotImplementedError

    def weights(self, targets: Any) -> Tensor | None:
        """What items count for in the loss so that rare classes count as much as frequent ones; None: not known.

        Of the training targets (N, ...). A task that gives some takes them in `loss`, by the name `weights`.
        """
        return None

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The gradient of each item's loss by its outputs, of G heads at once: outputs (B, G, K) -> (B, G, K)."""
        with torch.enable_grad():
            flat = outputs.detach().flatten(0, 1).requires_grad_()  # (B * G, K)
            total = self.loss(flat, targets.repeat_interleave(outputs.shape[1], dim=0), reduction="sum")
            (found,) = torch.autograd.grad(total, flat)
        return found.view_as(outputs)

    # ---- what is told

    def metrics(self) -> MetricCollection:
        """Fresh torchmetrics of outputs and targets; their names are the ends of keys in results.json."""
        raise NotImplementedError

    def measure(self, outputs: Any, targets: Any) -> dict[str, float]:
        """All metrics of some items, which all have a target."""
        found = self.metrics()
        found.update(*self.measurable(outputs.to("cpu"), targets.to("cpu")))
        scores = computed(found)
        return {self.main: scores[self.main], **scores}

    def details(self, outputs: Any, targets: Any) -> dict[str, float]:
        """Further figures of a test, which settings are never chosen by: computed once, and told beside `measure`."""
        return {}

    def per_class(self, outputs: Any, targets: Any) -> dict[str, float]:
        """The accuracy on each class that some item has, by its name; {} of a task without classes."""
        return {}

    def measurable(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """Outputs and targets as `metrics()` takes them."""
        return outputs, targets

    def noise(self, value: float, count: int) -> float:
        """How far apart two values of the main metric may lie by chance, of `count` items; here of a share."""
        return float(2 * (max(value * (1 - value), 0.25 / count) / count) ** 0.5)

    def word(self, value: float) -> str:
        """A value of the main metric for people."""
        return f"{100 * value:.1f} %"

    def outputs_of(self, means: Tensor) -> Tensor:
        """The outputs (B, K) that say what is the mean (B, T) of some targets: for kNN, and for the best constant."""
        return means

    def predict(self, outputs: Any) -> list[dict[str, Any]]:
        """Outputs as plain values with names, one mapping for each item."""
        return [dict(zip(self.names, row.tolist(), strict=True)) for row in outputs]

    def probabilities(self, outputs: Any) -> Tensor | None:
        """(B, K) float64 in [0, 1], a column for each of `names`; None of a task whose outputs are no probabilities."""
        return None

    def matched(self, names: Sequence[str], targets: Any) -> Any:
        """Targets of other data, whose classes or targets have these `names`, as this task's own; -1 or NaN for none.

        They are matched by name: what this task does not know is no target, and an item that lacks one has none.
        """
        place = {name: i for i, name in enumerate(names)}
        if targets.ndim == 1:  # classes (N,)
            own = {name: i for i, name in enumerate(self.names)}
            table = torch.tensor([own.get(name, -1) for name in names] + [-1])  # the last for -1
            return table[targets]
        if not all(name in place for name in self.names):
            return targets.new_full((len(targets), len(self.names)), torch.nan)
        return targets[:, [place[name] for name in self.names]]

    def listed(self, outputs: Any, targets: Any) -> list[dict[str, Any]]:
        """A row of `listed_in` for each item: what it is, what was said, and the number of `errors`."""
        return []

    def described(self) -> dict[str, Any]:
        """What is kept with a trained head, in plain values: the node, the names, and the statistics, its buffers."""
        node = self.node or {"_target_": f"{type(self).__module__}.{type(self).__qualname__}"}
        statistics = {name: value.tolist() for name, value in self.named_buffers()}
        return {"node": node, "names": list(self.names), "statistics": statistics}

    def restore(self, described: Mapping[str, Any]) -> Self:
        """A task built by the node, as it was when `described` was written; a saved state_dict then fits."""
        self.names = tuple(described["names"])
        for name, value in described["statistics"].items():
            setattr(self, name, torch.tensor(value, dtype=getattr(self, name).dtype))
        return self
