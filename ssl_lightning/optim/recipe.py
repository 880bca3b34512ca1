"""An optimizer with its published numbers: the one place where a base rate becomes a learning rate."""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssl_lightning.core import one_line
from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.param_groups import block_groups, split_decay
from ssl_lightning.optim.schedules import Plan, cosine


class Schedule(Protocol):
    def factor(self, step: int, total_steps: int, steps_per_epoch: int, peak_lr: float) -> float: ...


def steps_of(trainer: Any) -> tuple[int, int]:
    """(optimizer steps of the run, optimizer steps of an epoch) of a Lightning trainer about to fit.

    Raises UserError for a run without an end.
    """
    total = trainer.estimated_stepping_batches
    if math.isinf(total):
        raise UserError("the run has no end; set trainer.max_epochs or trainer.max_steps")
    if math.isinf(trainer.num_training_batches):  # with max_steps alone nobody has asked for the data so far
        trainer.fit_loop.setup_data()
    return int(total), max(1, -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches))


def plan_of(trainer: Any) -> Plan:
    """The steps of the run that a Lightning trainer is about to fit, and the ends that it had before."""
    earlier = getattr(trainer, "earlier_ends", ())
    if not earlier:
        return Plan((trainer.estimated_stepping_batches,))
    total, per_epoch = steps_of(trainer)

    def end(entry: Mapping[str, Any]) -> float:
        epochs, steps = (
            math.inf if entry.get(key) in (None, -1) else entry[key] for key in ("max_epochs", "max_steps")
        )
        return float(min(epochs * per_epoch, steps))

    return Plan.of(total, [(end(entry), str(entry.get("extend"))) for entry in earlier])


def accumulated(trainer: Any) -> int:
    """Batches of one optimizer step: an epoch of fewer than `accumulate_grad_batches` accumulates only those."""
    return int(min(trainer.accumulate_grad_batches, trainer.num_training_batches))


def share_of_window(trainer: Any) -> float:
    """What a batch's loss is to be multiplied by, after Lightning has divided it by `accumulate_grad_batches`.

    An epoch's last step accumulates what is left, and its gradient is to be the mean over those batches, too.
    """
    whole, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if whole == 1 or math.isinf(batches) or not batches % whole:
        return 1.0
    batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready  # of this epoch, from 1
    return float(whole / (batches % whole)) if batch > batches - batches % whole else 1.0


class OptimizerRecipe:
    """What a method needs to optimize itself, without knowing the batch size or the length of the run.

    Args:
        optimizer: a partial without lr and weight decay: `optimizer(groups, lr=..., weight_decay=...)`.
        base_lr: the rate at a global batch of 256, as papers state it.
        weight_decay: of everything but biases and norms, and what else a method leaves out.
        scheduler: a function of the step, such as `WarmupCosine`.
        final_weight_decay: where the weight decay goes along half a cosine (DINO: 0.04 to 0.4); None: it stays.
        decay_biases: biases and norms have weight decay, too, as with a plain SGD over all parameters (MoCo, SimSiam,
            ReSSL and DenseCL in their authors' code).
    """

    def __init__(
        self,
        optimizer: Callable[..., Optimizer],
        base_lr: float,
        weight_decay: float,
        scheduler: Schedule,
        final_weight_decay: float | None = None,
        decay_biases: bool = False,
    ) -> None:
        if not base_lr > 0:
            raise UserError(f"base_lr is {base_lr}; it must be above 0 (it is the rate at a global batch of 256)")
        self.optimizer = optimizer
        self.base_lr = base_lr
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.final_weight_decay = final_weight_decay
        self.decay_biases = decay_biases
        self._try()

    def _try(self) -> None:
        """Build the optimizer once, for a matrix of zeros: what it says of its arguments is said before training."""
        given = self.optimizer.keywords if isinstance(self.optimizer, functools.partial) else {}
        for name, key in (("lr", "base_lr"), ("weight_decay", "weight_decay")):
            if name in given:
                raise UserError(f"optimizer.optimizer.{name} would count for nothing; set optimizer.{key}")
        with one_line.building("optimizer"):
            self.optimizer([nn.Parameter(torch.zeros(2, 2))], lr=self.base_lr, weight_decay=self.weight_decay)

    def lr(self, global_batch: int) -> float:
        """The peak rate: linear in global batch = batch size x devices x nodes x accumulation (Goyal et al. 2017)."""
        return self.base_lr * global_batch / 256

    def build(
        self,
        module: nn.Module,
        global_batch: int,
        total_steps: int,
        steps_per_epoch: int,
        constant: Sequence[str] = (),
        decayed: Collection[str] | None = None,
        plan: Plan | None = None,
        slower: tuple[float, float] = (1.0, 1.0),
    ) -> dict[str, Any]:
        """What Lightning's `configure_optimizers` returns, for all parameters of `module` that require a gradient.

        Steps are optimizer steps, that is batches over accumulation. The children of `module` named in `constant` learn
        at the peak rate from the first step to the last (SimSiam's predictor). `decayed` names those with weight decay;
        None: by their shapes (`decayed_names`). `plan`: of a run that was made longer. `slower`: (share of the rate,
        layer decay) of the child `backbone`, for one that begins with trained weights.
        """
        named = list(module.named_parameters())
        layers = [name for name, _ in named if slower != (1.0, 1.0) and name.startswith("backbone.")]
        still = [(name, p) for name, p in named if name.split(".")[0] in constant]
        rest = [(name, p) for name, p in named if name.split(".")[0] not in constant and name not in set(layers)]
        moving = not layers or any(p.requires_grad for _, p in rest)
        groups = split_decay(rest, decayed, self.decay_biases) if moving else []
        last = split_decay(still, decayed, self.decay_biases) if still else []
        groups += [{**group, "constant": True} for group in last]
        if layers:
            groups += self._slower(module.get_submodule("backbone"), self.lr(global_batch), decayed, *slower)
        return self.build_groups(groups, global_batch, total_steps, steps_per_epoch, plan)

    def _slower(
        self, backbone: nn.Module, lr: float, decayed: Collection[str] | None, share: float, decay: float
    ) -> list[dict[str, Any]]:
        if not share > 0:
            raise UserError(f"the backbone's share of the rate is {share}; it must be above 0 (1: as the heads)")
        inner = None if decayed is None else {n.removeprefix("backbone.") for n in decayed if n.startswith("backbone.")}
        return block_groups(backbone, share * lr, decay, inner, self.decay_biases)

    def build_groups(
        self,
        groups: list[dict[str, Any]],
        global_batch: int,
        total_steps: int,
        steps_per_epoch: int,
        plan: Plan | None = None,
    ) -> dict[str, Any]:
        """The same for groups of one's own; a group's own lr or weight decay wins, and "constant" has no schedule."""
        peak, plan = self.lr(global_batch), plan or Plan((total_steps,))
        # Groups without a decay of their own (biases and norms have 0) follow its schedule; the optimizer fills it in.
        decayed = [i for i, group in enumerate(groups) if "weight_decay" not in group]
        optimizer = self.optimizer(groups, lr=peak, weight_decay=self.weight_decay)

        def factor(step: int) -> float:
            at, total = plan.place(step)
            return self.scheduler.factor(at, int(total), steps_per_epoch, peak)

        factors = [(lambda step: 1.0) if group.get("constant") else factor for group in groups]

        def decay(step: int) -> float:
            end = self.weight_decay if self.final_weight_decay is None else self.final_weight_decay
            at, total = plan.place(step)
            return cosine(self.weight_decay, end, at, total - 1)

        schedules = _Schedules(optimizer, factors, decay, decayed)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedules, "interval": "step"}}


class _Schedules(LambdaLR):
    """torch's LambdaLR, which sets the weight decay of some groups as well: `decay(step)` for the groups `decayed`."""

    def __init__(
        self,
        optimizer: Optimizer,
        factors: list[Callable[[int], float]],
        decay: Callable[[int], float],
        decayed: list[int],
    ) -> None:
        self.decay, self.decayed = decay, decayed
        super().__init__(optimizer, factors)

    def get_lr(self) -> list[Any]:
        for i in self.decayed:
            self.optimizer.param_groups[i]["weight_decay"] = self.decay(self.last_epoch)
        return super().get_lr()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The rate and the decay of the step are set anew: a run that was made longer has others than it saved."""
        super().load_state_dict(state_dict)
        groups = self.optimizer.param_groups
        for group, base, factor in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base * factor(self.last_epoch)
        for i in self.decayed:
            groups[i]["weight_decay"] = self.decay(self.last_epoch)
        self._last_lr = [group["lr"] for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """Without the decay: a function of the step, like the factors."""
        return {key: value for key, value in super().state_dict().items() if key not in ("decay", "decayed")}
