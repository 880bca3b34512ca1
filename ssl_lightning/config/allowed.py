"""What a config may name: the class that each place takes, the modules where such classes live, and a few functions.

A config is text that somebody else may have written. Nothing here depends on that text being friendly: a name counts
only if it is public, is one class of one module listed here (or of a package the user trusts), and is a subclass of
what its place takes. The classes listed read no pickle, import nothing, fetch nothing and write nothing outside the
run's folder, whatever plain arguments they are given; a class that does is not listed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_lightning.core.errors import UserError

ALL = ""  # of a home: every class of the right base in it


@dataclass(frozen=True)
class Slot:
    """What one place of a config takes.

    base: the class, by the name of the module that defines it; "" where a place takes functions alone.
    homes: the modules whose classes may be named without trust, each with the names that may ("": all). A home that
        ends in a dot stands for itself and all modules below.
    functions: those that may be named instead of a class.
    inside: text given to these classes may not be a path that leads out of the run's folder.
    """

    base: str
    homes: Mapping[str, str] = field(default_factory=dict, hash=False)
    functions: tuple[str, ...] = ()
    inside: bool = False

    @property
    def word(self) -> str:
        return self.base.rpartition(".")[2] or "stage's function"

    def holds(self, module: str, name: str) -> bool:
        """Is this class of this module one of those listed? Whether it has the right base is another question."""
        return any(under(module, home) and (not names or name in names.split()) for home, names in self.homes.items())


_VIEWS = {
    "ssl_lightning.modalities.image.views": ALL,
    "ssl_lightning.modalities.image.draw": ALL,
    "ssl_lightning.modalities.": ALL,
}
# Lightning's own neighbours of these write wherever they are told, send files away, or take functions.
_CALLBACKS = """BackboneFinetuning BatchSizeFinder DeviceStatsMonitor EarlyStopping EMAWeightAveraging
GradientAccumulationScheduler LearningRateFinder LearningRateMonitor ModelCheckpoint ModelPruning ModelSummary
OnExceptionCheckpoint RichModelSummary RichProgressBar StochasticWeightAveraging ThroughputMonitor Timer
TQDMProgressBar WeightAveraging"""
_STRATEGIES = "DDPStrategy FSDPStrategy ModelParallelStrategy SingleDeviceStrategy"
_PROFILERS = "AdvancedProfiler PassThroughProfiler PyTorchProfiler SimpleProfiler"

MODULE = Slot(
    "torch.nn.modules.module.Module",
    {
        "ssl_lightning.models.": ALL,
        "ssl_lightning.losses.": ALL,
        "ssl_lightning.parts.": ALL,
        "torch.nn": ALL,
        "torch.nn.modules.": ALL,
        "torchmetrics.classification.": ALL,
        "torchmetrics.regression.": ALL,
    },
    functions=("ssl_lightning.models.resnet.resnet", "ssl_lightning.models.timm.timm_backbone"),
)
OPTIMIZER = Slot(
    "torch.optim.optimizer.Optimizer", {"ssl_lightning.optim.": ALL, "torch.optim.": ALL, "timm.optim.": ALL}
)
CALLBACK = Slot(
    "lightning.pytorch.callbacks.callback.Callback",
    {"ssl_lightning.callbacks.": ALL, "lightning.pytorch.callbacks.": _CALLBACKS},
    inside=True,
)
LOGGER = Slot(
    "lightning.pytorch.loggers.logger.Logger",
    {"ssl_lightning.callbacks.": ALL, "lightning.pytorch.loggers.": "CSVLogger TensorBoardLogger"},
    inside=True,
)
STRATEGY = Slot(
    "lightning.pytorch.strategies.strategy.Strategy", {"lightning.pytorch.strategies.": _STRATEGIES}, inside=True
)
PROFILER = Slot(
    "lightning.pytorch.profilers.profiler.Profiler", {"lightning.pytorch.profilers.": _PROFILERS}, inside=True
)
METHOD = Slot("ssl_lightning.methods.base.SSLMethod", {"ssl_lightning.methods.": ALL})
DATA = Slot(
    "ssl_lightning.data.base.DataModule",
    {"ssl_lightning.modalities.image.sources.": ALL, "ssl_lightning.modalities.": ALL},
)
VIEWS = Slot("ssl_lightning.data.plan.Views", _VIEWS)
VIEW = Slot("ssl_lightning.modalities.image.draw.View", _VIEWS)
OPERATION = Slot(
    "ssl_lightning.modalities.image.operation.Operation",
    {"ssl_lightning.modalities.image.operations": ALL, "ssl_lightning.modalities.image.moves": ALL},
)
AUDIO_VIEW = Slot("ssl_lightning.modalities.audio.draw.AudioView", _VIEWS)
RECIPE = Slot("ssl_lightning.optim.recipe.OptimizerRecipe", {"ssl_lightning.optim.recipe": ALL})
SCHEDULE = Slot("ssl_lightning.optim.recipe.Schedule", {"ssl_lightning.optim.schedules": ALL})
TEACHER = Slot("ssl_lightning.parts.ema_teacher.EMATeacher", {"ssl_lightning.parts.ema_teacher": ALL}, inside=True)
TASK = Slot("ssl_lightning.core.task.Task", {"ssl_lightning.tasks.": ALL})
PROBE = Slot("ssl_lightning.evaluation.linear_probe.ProbeSettings", {"ssl_lightning.evaluation.linear_probe": ALL})
_TRAINING = ("pretrain", "finetune", "detect", "segment", "label_curve")
_EVALUATING = ("knn", "linear", "retrieve", "quality", "invariance", "transfer", "attention")
_USING = ("predict", "embed", "export")
_STAGES = (*_TRAINING, *_EVALUATING, *_USING, "compare", "doctor", "report")
STAGE = Slot("", functions=tuple(f"ssl_lightning.stages.{name}.run" for name in _STAGES))

SLOTS: tuple[Slot, ...] = (MODULE, OPTIMIZER, CALLBACK, LOGGER, STRATEGY, PROFILER)
SLOTS += (METHOD, DATA, VIEWS, VIEW, OPERATION, AUDIO_VIEW, RECIPE, SCHEDULE, TEACHER, PROBE, TASK)
ANYWHERE = (*SLOTS, STAGE)
BY_BASE = {slot.base: slot for slot in SLOTS}
# What each group of the config takes at its top; what lies deeper is told by the constructor's annotations.
PLACES: dict[str, tuple[Slot, ...]] = {
    "backbone": (MODULE,),
    "method": (METHOD,),
    "views": (VIEWS,),
    "scheduler": (SCHEDULE,),
    "optimizer": (RECIPE,),
    "data": (DATA,),
    "callbacks": (CALLBACK,),
    "logger": (LOGGER,),
    "stage": (STAGE,),
    "task": (TASK,),
}

# A user's own stage takes one of these parts of the run (`cli.run_parts.Parts`): no other function does.
STAGE_TAKES = frozenset(("method", "judged", "data", "other_data", "open_judged", "trainer", "run"))

# Arguments of timm's networks. Its own (checkpoint_path, pretrained_cfg, cache_dir ...) read, fetch and write files.
_TIMM = """act_layer aa_layer attn_drop_rate attn_ratio base_width block_size cardinality channels class_token conv_bias
depth depths dim dims distilled down_kernel_size drop drop_block_rate drop_path_rate drop_rate dynamic_img_pad
dynamic_img_size embed_dim embed_dims expand_ratio fc_norm final_norm fix_init fix_stem global_pool groups growth_rate
head_dim head_hidden_size head_init_scale heads img_size in_chans init_values kernel_size layer_scale
layer_scale_init_value layers ls_init_value mlp_ratio mlp_ratios mlp_bias no_embed_class norm_eps norm_layer
num_features num_heads num_kv_heads output_stride pad_type patch_drop_rate patch_size patch_norm pool_type pos_drop_rate
pos_embed pre_norm proj_bias proj_drop_rate qk_norm qkv_bias qkv_fused reg_tokens rope_theta se_layer se_ratio sr_ratios
stem_chs stem_kernel_size stem_size stem_stride stem_type stem_width strict_img_size stride swiglu_mlp
use_abs_pos_emb use_checkpoint use_conv use_fc_norm use_pos_embed use_post_norm use_rel_pos_bias
use_shared_rel_pos_bias weight_init widths window_ratio window_size zero_init_last"""
TIMM_ARGUMENTS = frozenset(_TIMM.split())

_FIELD = re.compile(r"\{[\w/.@ +-]+(:[0-9.]*[defgEG%]?)?\}")  # of a file's name: `{epoch:03d}`, `{val/top1:.2f}`

# Packages that nobody can call their own: to trust them would let a config name what this file leaves out.
_KNOWN = """ssl_lightning torch torchvision torchaudio torchmetrics torchgen functorch triton nvidia lightning
pytorch_lightning lightning_fabric lightning_utilities timm hydra omegaconf antlr4 numpy scipy sklearn pandas joblib
safetensors huggingface_hub hf_xet yaml ruamel PIL matplotlib wandb tensorboard google onnx onnxruntime onnxscript
fsspec requests httpx urllib3 aiohttp dill cloudpickle jinja2 mako sympy networkx psutil tqdm rich click git docker
setuptools pkg_resources distutils wheel pip packaging importlib_metadata IPython ipykernel pytest mypy ruff hatchling
submitit mpi4py deepspeed attr pydantic"""
NOT_YOURS = frozenset(_KNOWN.split())


def under(module: str, home: str) -> bool:
    """Is this module the home, or, where the home ends in a dot, below it?"""
    return f"{module}.".startswith(home) if home.endswith(".") else module == home


def public(dotted: Any) -> bool:
    """A dotted name of plain words, none of which begins with an underscore."""
    return isinstance(dotted, str) and all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", p) for p in dotted.split("."))


def own_packages(trusted: Iterable[str]) -> tuple[str, ...]:
    """The user's packages, checked: a standard or well-known one is never theirs. Raises UserError for such a one."""
    names = (trusted,) if isinstance(trusted, str) else tuple(trusted)
    for name in names:
        if not public(name):
            raise UserError(f"trusted_packages: {shown(name)} is not the name of a package")
        if never_trusted(name):
            raise UserError(
                f"trusted_packages: '{name}' is not a package of your own; name the one that holds your classes"
            )
    return names


def never_trusted(name: str) -> bool:
    top = name.split(".")[0]
    return top in NOT_YOURS or top in sys.stdlib_module_names


def trusts(module: str, trusted: Iterable[str]) -> bool:
    """Does this module lie in one of the user's packages?"""
    return any(under(module, f"{package}.") for package in trusted)


def listed(target: str, slots: Iterable[Slot], trusted: Iterable[str] = ()) -> bool:
    """May this dotted name stand in one of these places, as far as the name alone tells?"""
    module, _, name = target.rpartition(".")
    if not public(target) or not module:
        return False
    return trusts(module, trusted) or any(target in slot.functions or slot.holds(module, name) for slot in slots)


def shown(value: Any) -> str:
    """A value of somebody else's in a message: short, and on one line."""
    text = f"'{value}'" if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def leads_out(text: str) -> bool:
    """Is this text a path or an address that leads out of the folder it is taken in?

    Lightning fills in what stands in braces, with the name before it: `{/tmp/x}` becomes /tmp/x=0. A field that is
    more than a metric's name and a number's form could become any letter (`{step:c}` is a slash at step 47).
    """
    if set(_FIELD.sub("", text)) & set("{}"):
        return True
    text = re.sub(r"[{}]", "", text)
    steps = re.split(r"[/\\]", text)
    return text.startswith(("/", "\\", "~")) or ".." in steps or "://" in text or "\0" in text or steps[0][1:2] == ":"
