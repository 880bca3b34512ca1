"""Self-supervised learning on images, audio and your own data: pretrain, evaluate and use a backbone.

The names of `__all__` are what code of your own needs; each is imported, with all it builds on, when it is first asked
for. So importing the package itself loads nothing heavy, and `python -m ssl_lightning --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_lightning.config import shims

if TYPE_CHECKING:
    from ssl_lightning.api import embed as embed
    from ssl_lightning.api import evaluate as evaluate
    from ssl_lightning.api import finetune as finetune
    from ssl_lightning.api import load_backbone as load_backbone
    from ssl_lightning.api import load_run as load_run
    from ssl_lightning.api import pretrain as pretrain
    from ssl_lightning.core.batch import Batch as Batch
    from ssl_lightning.core.batch import Padded as Padded
    from ssl_lightning.core.batch import chunk as chunk
    from ssl_lightning.core.batch import concat as concat
    from ssl_lightning.core.distributed import gather as gather
    from ssl_lightning.core.errors import UserError as UserError
    from ssl_lightning.core.protocols import Encoder as Encoder
    from ssl_lightning.core.protocols import MapEncoder as MapEncoder
    from ssl_lightning.core.protocols import TokenEncoder as TokenEncoder
    from ssl_lightning.core.task import Task as Task
    from ssl_lightning.data.base import DataModule as DataModule
    from ssl_lightning.data.plan import Views as Views
    from ssl_lightning.methods.base import SSLMethod as SSLMethod
    from ssl_lightning.methods.base import StepOutput as StepOutput
    from ssl_lightning.modalities.learned import load_model as load_model
    from ssl_lightning.modalities.learned import predict as predict
    from ssl_lightning.modalities.predicting import Predictions as Predictions
    from ssl_lightning.runs.checkpoint import load_weights as load_weights
    from ssl_lightning.runs.checkpoint import save_backbone as save_backbone
    from ssl_lightning.runs.embedded import Embedded as Embedded
    from ssl_lightning.runs.model import Model as Model
    from ssl_lightning.runs.opened import Run as Run

# Each public name and the module that it stands in; tests/test_surface.py holds it and the imports above together.
_HOMES = {
    "Batch": "core.batch",
    "DataModule": "data.base",
    "Embedded": "runs.embedded",
    "Encoder": "core.protocols",
    "MapEncoder": "core.protocols",
    "Model": "runs.model",
    "Padded": "core.batch",
    "Predictions": "modalities.predicting",
    "Run": "runs.opened",
    "SSLMethod": "methods.base",
    "StepOutput": "methods.base",
    "Task": "core.task",
    "TokenEncoder": "core.protocols",
    "UserError": "core.errors",
    "Views": "data.plan",
    "chunk": "core.batch",
    "concat": "core.batch",
    "embed": "api",
    "evaluate": "api",
    "finetune": "api",
    "gather": "core.distributed",
    "load_backbone": "api",
    "load_model": "modalities.learned",
    "load_run": "api",
    "load_weights": "runs.checkpoint",
    "predict": "modalities.learned",
    "pretrain": "api",
    "save_backbone": "runs.checkpoint",
}
__all__ = ["__version__", *_HOMES]

shims.install()


def __getattr__(name: str) -> Any:
    """Import a public name, and look the version up, only when they are asked for."""
    if name in _HOMES:
        return getattr(import_module(f"ssl_lightning.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # a third of the time that --help takes

        try:
            return version("ssl-lightning")
        except PackageNotFoundError:  # run from a checkout that is not installed
            return "0.1.0"
    raise AttributeError(f"module 'ssl_lightning' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
