"""Self-supervised learning on images: pretrain, judge and use a backbone. Importing this loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_lightning.config import shims

if TYPE_CHECKING:
    from ssl_lightning.runs.checkpoint import load_backbone as load_backbone

__all__ = ["__version__", "load_backbone"]

shims.install()


def __getattr__(name: str) -> Any:
    """Import `load_backbone` (and with it torch) and look the version up only when they are asked for."""
    if name == "load_backbone":
        from ssl_lightning.runs.checkpoint import load_backbone

        return load_backbone
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # a third of the time that --help takes

        try:
            return version("ssl-lightning")
        except PackageNotFoundError:  # run from a checkout that is not installed
            return "0.1.0"
    raise AttributeError(f"module 'ssl_lightning' has no attribute '{name}'")
