"""What every method shares: a backbone, one readout, an optimizer recipe, and what its step hands to the callbacks."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.core import ddp
from ssl_lightning.core.batch import GLOBAL, LOCAL, Batch, concat, stack_shape
from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import is_main_process
from ssl_lightning.core.protocols import check_size
from ssl_lightning.core.watched import EmbedOutput, StepOutput
from ssl_lightning.methods.plain import batch_of
from ssl_lightning.optim.param_groups import decayed_names
from ssl_lightning.optim.recipe import OptimizerRecipe, accumulated, plan_of, share_of_window, steps_of
from ssl_lightning.parts.teacher import Teacher
from ssl_lightning.runs.adopted import adopted

__all__ = ["EmbedOutput", "SSLMethod", "StepOutput", "batch_size_of"]


class SSLMethod(LightningModule):
    """Base of all methods: holds the backbone, the readout and the optimizer; the training step is the method's own.

    Args:
        backbone: any module from images (B, 3, H, W) to features (B, D) with an integer `out_dim` = D; one without is
            tried with two images (`adopted`).
        optimizer: how to optimise; also a function from the parameters to what Lightning's `configure_optimizers` may
            return, such as `functools.partial(torch.optim.AdamW, lr=1e-3)`; None for a method that is only judged or
            exported, or whose subclass has a `configure_optimizers` of its own.
        seed: of what the method draws (`draw`).

    In one's own Trainer a plain DataLoader of `([v1, v2], labels)` will do (`methods.plain`).

    >>> class Invariant(SSLMethod):
    ...     def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
    ...         features = self.backbone(concat(batch.global_views))  # (2B, D)
    ...         f1, f2 = features.chunk(2)
    ...         return self.output((f1 - f2).square().mean(), features, f1, f2)
    """

    uses_local_views = False  # whether the step makes something of multi-crop's small views
    global_views: int | None = 2  # how many it needs (one, or two); None: two or more
    modality: str = ""  # the kind of data it is made for, such as "image" (`DataModule.modality`); "": any
    constant_lr: tuple[str, ...] = ()  # children whose rate has no schedule
    # Parameters whose shape does not tell whether the authors decay them: by its shape a mask token is a bias.
    decayed: tuple[str, ...] = ()
    not_decayed: tuple[str, ...] = ()
    features_are_readout = True  # whether a step's features are `embed`'s; not of masked images, tiles, or a teacher's
    backbone_rate = 1.0  # the backbone's rate as a share of the heads'
    layer_decay = 1.0  # each of its blocks learns this many times slower than the next one
    judged_by = "backbone"  # the submodule whose features are judged and exported; a method may say its teacher's

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Every step, a user's own method's too, gets a `Batch`, whatever the loader gave."""
        super().__init_subclass__(**kwargs)
        if "training_step" in vars(cls):
            cls.training_step = _with_batch(vars(cls)["training_step"])  # type: ignore[method-assign]

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: OptimizerRecipe | Callable[[Iterable[Tensor]], Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.backbone = _asked(adopted(backbone))
        self._sizes: tuple[int, ...] = ()  # of the views that were checked last
        self.optimizer_recipe = optimizer
        self._decayed: frozenset[str] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of the running hook here some forty times a step, and torch looks at each attribute
        # whether it is a parameter, a module or a buffer: a tenth of a millisecond.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def embed(self, x: Tensor) -> Tensor:
        """The sole readout, images (B, 3, H, W) -> features (B, D): probes, kNN, fine-tuning and export all use it."""
        return self.judged(x)

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and exported."""
        return self.get_submodule(self.judged_by)

    def decayed_parameters(self) -> frozenset[str]:
        """Names of the parameters with weight decay."""
        return decayed_names(self.named_parameters(), self.decayed, self.not_decayed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["judged_by"] = self.judged_by
        data: Any = getattr(self._trainer, "datamodule", None)
        if isinstance(getattr(data, "modality", None), str):  # one of ours: how its items are fed to a network
            checkpoint["card"] = data.card()
        if self._decayed is not None:
            checkpoint["decayed"] = sorted(self._decayed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run goes on with the weight decay it began with: older ones decided by the shape alone."""
        names = checkpoint.get("decayed")
        self._decayed = decayed_names(self.named_parameters()) if names is None else frozenset(map(str, names))

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)

    def setup(self, stage: str) -> None:
        ddp.spare(self)
        self._decayed = self.decayed_parameters()  # here, before a strategy that shards makes all tensors flat

    def on_fit_start(self) -> None:
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):
            ddp.send_once(self)

    def scoring(self, loss: Callable[..., Any], *handed: str) -> Callable[..., Any]:
        """`loss`, if it takes what this method hands it; raises UserError for one that was made for other methods."""
        try:
            inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).bind(*handed)
        except TypeError as error:
            name = type(loss).__name__
            raise UserError(f"{name} does not take {', '.join(handed)}; choose another method/loss=") from error
        return loss

    def draw(self, batch: Batch, n: int, stream: int = 0, epoch: int | None = None) -> Tensor:
        """`n` numbers in [0, 1) for each item of a batch: float32 (B, n), see `counter.uniform`.

        A pure function of the method's seed, the epoch (None: the running one; pictures take a fixed one) and the
        item's index: the same on any rank, in any batch, and after a resume. `stream` (0 or more) keeps apart what is
        drawn for one item and one purpose from what is drawn for another.
        """
        return self.draw_for(batch.indices, n, stream, epoch)

    def draw_for(self, indices: Tensor, n: int, stream: int = 0, epoch: int | None = None) -> Tensor:
        """`draw` for any numbers (B,) int64, such as that of the step, on their device."""
        epoch = self.current_epoch if epoch is None else epoch
        return uniform(self.seed, epoch, indices, METHOD_STREAM + stream, n)

    def features_of(self, views: Sequence[Tensor], network: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """V views of B items -> V features (B, D); views of one size pass the backbone (or `network`) in one call."""
        features: list[Tensor] = []
        for _, same in groupby(views, key=stack_shape):
            group = list(same)
            features += (network or self.backbone)(concat(group)).chunk(len(group))
        return features

    def output(self, loss: Tensor, features: Tensor, *embeddings: Tensor, **watch: Tensor | float) -> StepOutput:
        """Packs a step's result; `embeddings` holds one (B, P) tensor for each view."""
        stacked = torch.cat(embeddings).detach()  # (V*B, P)
        return StepOutput(loss=loss, features=features.detach(), embeddings=stacked, watch=watch)

    def batch_of(self, batch: Any, number: int) -> Batch:
        """A plain loader's batch, the `number`-th of its epoch, as this method takes it; a `Batch` is taken as it is.

        Raises UserError for views that this method cannot use, and for views of several sizes without roles.
        """
        if isinstance(batch, Batch):
            if not batch.roles and any(stack_shape(view) != stack_shape(batch.views[0]) for view in batch.views[1:]):
                raise UserError('a Batch of views of several sizes has no roles; give roles=("global", "local", ...)')
            return batch
        found = batch_of(batch, number)
        if self.global_views == 1 and len(found.views) > 1:
            found = found._replace(views=found.views[:1], roles=found.roles[:1])
        sizes = tuple(view.shape[-1] for view in found.views)
        if sizes != self._sizes:
            self.accept(sizes, found.roles)
            self._sizes = sizes
            if self.global_views == 1 and is_main_process():
                print(f"{type(self).__name__} learns from the first view of a batch alone", file=sys.stderr)
        return found

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> EmbedOutput:
        batch = batch_of(batch, batch_idx)
        features = self.embed(batch.views[0])  # (B, D)
        return EmbedOutput(features=features, labels=batch.labels, indices=batch.indices)

    def teachers(self) -> Iterator[Teacher]:
        """The teachers this method holds."""
        return (module for module in self.modules() if isinstance(module, Teacher))

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(student, teacher) networks for `EMATeacher`."""
        return [pair for teacher in self.teachers() for pair in teacher.pairs]

    def configure_callbacks(self) -> Sequence[Callback]:
        """A teacher's callback cannot be forgotten: it comes with the method."""
        return [teacher.ema for teacher in self.teachers()]

    def accept(self, sizes: Sequence[int], roles: Sequence[str] = ()) -> None:
        """Refuses views (their sides in pixels and their roles, in order) that this method cannot use, before anything
        is loaded. Without roles all are global; without sizes the views have none, as those of a sequence."""
        roles = roles or (GLOBAL,) * len(sizes)
        count = roles.count(GLOBAL)
        if count < (self.global_views or 2) or count > (self.global_views or count):
            wanted = "one global view" if self.global_views == 1 else "two global views"
            raise UserError(f"this method needs {wanted} and got {count}; set views.*.count")
        small = min((size for size, role in zip(sizes, roles) if role == GLOBAL), default=0)
        if sizes and small < sizes[0]:
            raise UserError(f"a global view of {small} px is smaller than the first, of {sizes[0]} px; change views.*")
        if LOCAL in roles and not self.uses_local_views:
            raise UserError("this method has no use for local views; choose views= without them, for example views=sym")
        if sizes:
            self.check_views(sizes)

    def check_views(self, sizes: Sequence[int]) -> None:
        """Refuses sizes of views (their sides in pixels, in order) that this method or its network cannot use."""
        for size in sizes:
            check_size(self.backbone, size)

    def configure_optimizers(self) -> Any:
        """One optimizer step sees batch_size x devices x nodes x accumulation images: the recipe scales by that."""
        if self.optimizer_recipe is None:
            name = type(self).__name__
            fix = "pass optimizer=OptimizerRecipe(...), or functools.partial(torch.optim.AdamW, lr=1e-3)"
            raise UserError(f"{name} was built without an optimizer; {fix}")
        if not isinstance(self.optimizer_recipe, OptimizerRecipe):
            return self.optimizer_recipe([p for p in self.parameters() if p.requires_grad])
        steps = steps_of(self.trainer)
        batch_size = batch_size_of(self.trainer)
        if batch_size is None:
            fix = "train with a datamodule or a DataLoader that has a batch_size"
            raise UserError(f"the learning rate scales with the batch; {fix}")
        global_batch = batch_size * self.trainer.world_size * accumulated(self.trainer)
        plan, slower = plan_of(self.trainer), (self.backbone_rate, self.layer_decay)
        return self.optimizer_recipe.build(self, global_batch, *steps, self.constant_lr, self._decayed, plan, slower)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        share = share_of_window(self.trainer)
        super().backward(loss if share == 1 else loss * share, *args, **kwargs)


def _asked(backbone: nn.Module) -> nn.Module:
    """The backbone; a transformer of timm's can be asked for its tokens."""
    if not type(backbone).__module__.startswith("timm."):
        return backbone
    from ssl_lightning.models.timm_tokens import with_tokens  # timm takes half a second to import

    return with_tokens(backbone)


def _with_batch(step: Callable[..., Any]) -> Callable[..., Any]:
    """A training step that is given a plain loader's batch as a `Batch`."""

    @functools.wraps(step)
    def wrapped(self: SSLMethod, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:
        return step(self, self.batch_of(batch, batch_idx), batch_idx, *args, **kwargs)

    return wrapped


def batch_size_of(trainer: Any) -> int | None:
    """Images of a batch on one device: the datamodule's, else those of the loader that is trained on."""
    loader = getattr(trainer, "train_dataloader", None)
    for owner in (trainer.datamodule, loader, getattr(loader, "batch_sampler", None)):
        found = getattr(owner, "batch_size", None)
        if found is not None:
            return int(found)
    return None
