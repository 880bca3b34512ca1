"""What a number may be: the same word has the same range wherever it stands. Checked before torch is loaded.

A constructor's annotation says "an integer"; here stands that `batch_size` is 1 or more. For classes and functions of
this package, for the arguments of lightning.Trainer, and for torch's losses.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssl_lightning.core.errors import UserError

Length = tuple[str, float]  # a key and its value
LARGEST = 2**53  # no number of a config is meant to be above it
PROCESSES = 64  # of one run on a machine with few cores: more is a slip of the finger


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; a bound that is `open` is not in it itself."""

    low: float = -math.inf
    high: float = math.inf
    open: str = ""  # "low", "high" or both

    def holds(self, value: float) -> bool:
        above = value > self.low if "low" in self.open else value >= self.low
        return above and (value < self.high if "high" in self.open else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if "low" in self.open else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if 'high' in self.open else 'at most'} {self.high:.10g}"


ONE, TWO, ZERO, ABOVE = Range(1), Range(2), Range(0), Range(0, open="low")
SHARE, PART, BELOW_ONE, UP_TO_ONE = Range(0, 1), Range(0, 1, "low high"), Range(0, 1, "high"), Range(0, 1, "low")
OR_ALL = Range(-1)  # -1: without an end

_OURS = {
    ONE: """channels in_channels length eval_resize EvalView.resize ends
        batch_size bank_size query_size labels_per_class every_n_steps every_n_epochs every_n_batches
        keep_every_n_epochs patience rows k chunk count width dim depth heads in_dim hidden_dim out_dim bottleneck_dim
        num_layers num_classes patch_size image_size mask_size prototypes memory_size queue_size iterations targets
        directions cells tile_size stride offsets target_blocks neighbours epochs multiple size test_size groups
        layers width_per_group kernels layer_strides mels sample_rate canvas AudioView.length LocalAudioView.length
        head_dim samples levels Detector.classes Segmenter.classes
        DeviceAudioViews.count AudioEvalView.length Audio.length Tones.length train per_class classes run.items""",
    TWO: "knots WMSELoss.size View.size LocalView.size run.views",
    ZERO: """num_workers warmup_epochs frozen_epochs queue_epoch registers weight_decay weight_decays final_weight_decay
        min_lr warmup_start_lr weight spread_weight beta invariance variance covariance redundancy brightness contrast
        saturation min_std min_rank min_scale mixup cutmix prior_power eta refresh_seconds line_seconds
        SwAV.queue_size rho MSNLoss.iterations SwAV.iterations eps LogMel.low LogMel.high Audio.low Audio.high Tones.low
        Tones.high AudioDataModule.low AudioDataModule.high Page.items steps DropPath.place""",
    Range(0, 4): "strength",
    Range(0, 180): "degrees",
    Range(0, 10): "StainJitter.bias",
    Range(0, 1e6): "alpha",
    Range(0.1, 1e4): "Elastic.sigma",
    ABOVE: """temperature target_temperature teacher_temperature warmup_teacher_temperature base_lr lr lrs sigma epsilon
        rank_timeout worker_timeout every_n_minutes limit scale std layer_scale ratio blur_sigma target_scale
        target_aspect context_scale ColorBins.size KoLeo.eps speed time_scale freq_scale gamma seconds LogMel.window
        LogMel.hop LogMel.floor MelViT.hop Audio.window Audio.hop Tones.window Tones.hop AudioDataModule.window
        AudioDataModule.hop zoom anchor_scale""",
    SHARE: """momentum final_momentum center_momentum mask_probability flip_p jitter_p grayscale_p blur_p solarize_p
        solarize_threshold even_share IBOT.mask_ratio MSN.mask_ratio LeJEPA.weight
        noise_p mix_p resize_p mix time_mask freq_mask same p StainJitter.sigma""",
    PART: "mask_ratio part test_fraction",
    BELOW_ONE: "label_smoothing tau_plus drop_path DropPath.rate average Average.decay holdout picking WMSELoss.eps",
    UP_TO_ONE: """mass label_fraction fractions layer_decay crop_scale backbone_rate View.scale LocalView.scale
        TiCoLoss.beta crop area""",
    Range(-100, 0): "level",  # dB of full scale
    Range(0, 0.5): "hue",
    Range(0, 16): "time_masks freq_masks",
    Range(0, 2**32 - 1): "seed seeds image_seed sound_seed",
}
_TRAINER = {
    ONE: "num_nodes check_val_every_n_epoch accumulate_grad_batches",
    ZERO: """log_every_n_steps reload_dataloaders_every_n_epochs min_epochs min_steps overfit_batches fast_dev_run
        limit_val_batches limit_test_batches limit_predict_batches""",
    OR_ALL: "max_epochs max_steps num_sanity_val_steps",
    ABOVE: "limit_train_batches gradient_clip_val val_check_interval",
}
_LOSSES = {
    ZERO: "SmoothL1Loss.beta",
    ABOVE: "HuberLoss.delta",
    SHARE: "label_smoothing",
}  # of torch.nn; what its optimizers refuse, OptimizerRecipe finds by trying them once
# Words of which only a few are right, where the annotation says no more than "text".
_WORDS = {
    "torch.nn": {"reduction": ("mean", "sum")},
    "lightning.Trainer": {"gradient_clip_algorithm": ("norm", "value")},
}


def _flat(table: Mapping[Range, str]) -> dict[str, Range]:
    return {name: found for found, names in table.items() for name in names.split()}


_FLAT = {"ssl_lightning": _flat(_OURS), "lightning.Trainer": _flat(_TRAINER)}
_FLAT |= {"torch.nn": _flat(_LOSSES)}


def check(target: str, name: str, value: Any, where: str) -> None:
    """Raise a UserError where an argument of a class or function is a number out of its range.

    `target`: its dotted name; a class that is neither ours nor torch's may take what it wants. `where`: the place in
    the config, for the message. Of a list each number is looked at.
    """
    home = next((home for home in _FLAT if target == home or target.startswith(f"{home}.")), None)
    if home is None:
        return
    own = f"{target.rpartition('.')[2]}.{name}"
    wanted = _FLAT[home].get(own) or _FLAT[home].get(name)
    for number in _numbers(value):
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{where}={_shown(value)}: give a number that is finite{f', {wanted}' if wanted else ''}")
        if wanted is not None and not wanted.holds(number):
            raise UserError(f"{where}={_shown(value)} is out of range; it must be {wanted}")
        if abs(number) > LARGEST:
            raise UserError(f"{where}={_shown(value)} is too large; give a number below 2**53")
    words = _WORDS.get(home, {}).get(name)
    if words and isinstance(value, str) and value not in words:
        raise UserError(f"{where} wants one of {', '.join(words)}, not {value!r}")


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- what several values say together ------------------------------------------------------------------------------

FULL = ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")  # views and losses are float32


def check_together(values: Mapping[str, Any], typed: Callable[[str], bool]) -> None:
    """Raise a UserError for values of a whole config that contradict each other, or that Lightning cannot work with.

    `typed`: was this key given on the command line?
    """
    check_trainer(values["trainer"])
    _check_channels(values.get("data") or {})
    for length, warmup in _warmups(values, typed):
        if warmup[1] >= length[1]:
            raise UserError(
                f"{warmup[0]}={warmup[1]:g} is no shorter than the run ({length[0]}={length[1]}); warm up for less"
            )


def notes(values: Mapping[str, Any], typed: Callable[[str], bool]) -> list[str]:
    """What of a command line counts for less than it says, a line each."""
    return [
        f"{warmup[0]}={warmup[1]:g}: the warm-up is at most a tenth of the run, {length[1] / 10:g} epochs"
        for length, warmup in _warmups(values, typed)
        if warmup[1] * 10 > length[1]
    ]


def _warmups(values: Mapping[str, Any], typed: Callable[[str], bool]) -> Iterator[tuple[Length, Length]]:
    """(the length of the run, a warm-up that was asked for), each with its key."""
    for part, length in (("scheduler", "trainer.max_epochs"), ("stage", "stage.epochs")):
        group, _, key = length.partition(".")
        whole, warmup = (values.get(group) or {}).get(key), (values.get(part) or {}).get("warmup_epochs")
        if typed(f"{part}.warmup_epochs") and not typed("debug") and warmup and whole and whole > 0:
            yield (length, whole), (f"{part}.warmup_epochs", warmup)


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Raise a UserError for arguments of lightning.Trainer that no run of ours can have."""
    precision = trainer.get("precision")
    if precision is not None and str(precision) not in FULL:
        raise UserError(f"trainer.precision={precision} does not work here: images and losses are float32. "
                        "Use 32-true, bf16-mixed or 16-mixed")  # fmt: skip
    if trainer.get("max_epochs", 1) == 0 or trainer.get("max_steps", -1) == 0:
        raise UserError("the run trains nothing; give trainer.max_epochs or trainer.max_steps of 1 or more")
    if trainer.get("max_epochs", 1) in (None, -1) and trainer.get("max_steps", -1) in (None, -1):
        raise UserError("the run has no end; set trainer.max_epochs or trainer.max_steps")
    _check_devices(trainer.get("devices", 1), trainer.get("accelerator"))
    _check_strategy(trainer.get("strategy"))


def _check_devices(devices: Any, accelerator: Any) -> None:
    listed = isinstance(devices, list | tuple) or "," in str(devices)
    items = devices if isinstance(devices, list | tuple) else [i for i in str(devices).split(",") if i.strip()]
    numbers = [int(str(item)) for item in items if re.fullmatch(r"-?\d{1,18}", str(item).strip())]
    if listed:
        right = len(numbers) == len(items) == len(set(numbers)) and min(numbers, default=-1) >= 0
    else:
        right = str(devices) == "auto" or (len(numbers) == 1 and (numbers[0] >= 1 or numbers[0] == -1))
    if not right:
        raise UserError(
            f"trainer.devices={_shown(devices)} is no number of devices; give 1 or more, auto, or the numbers of "
            "different GPUs, [0,1]"
        )
    if accelerator == "cpu" and (listed or numbers == [-1]):
        raise UserError(f"trainer.devices={_shown(devices)} names GPUs, and this run is on the CPU; give a number")
    most = max(PROCESSES, 4 * (os.cpu_count() or 1))
    if not listed and numbers and numbers[0] > most:
        raise UserError(f"trainer.devices={numbers[0]} is more than this machine can have; give at most {most}")


def _check_strategy(strategy: Any) -> None:
    if isinstance(strategy, Mapping):
        strategy = strategy.get("start_method", "popen")
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(
            f"trainer.strategy={strategy} copies a process that has loaded its data and cannot go on from a checkpoint "
            "exactly; use ddp, which starts a process for each device"
        )


def _check_channels(data: Mapping[str, Any]) -> None:
    """Raise a UserError where the data's mean and std are not for the same channels."""
    mean, std = data.get("mean"), data.get("std")
    if isinstance(mean, list | tuple) and isinstance(std, list | tuple) and (len(mean) != len(std) or not mean):
        raise UserError(
            f"data.mean has {len(mean)} numbers and data.std {len(std)}; give one of each for every channel"
        )
