"""A package that this one depends on and that this Python does not have: the line that says so."""

from __future__ import annotations

import importlib.util
import sys

from ssl_lightning.core.errors import UserError

# What each dependency of pyproject.toml is called where it is imported.
IMPORTED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "wandb": "wandb",
    "timm": "timm",
    "rich": "rich",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
NEEDED = ("torch", "lightning")  # by every run, and by the check of its arguments, which reads their sources


def check() -> None:
    """Raise a UserError where a run could not even begin."""
    for package in NEEDED:
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            raise UserError(_line(package))


def line(error: ModuleNotFoundError) -> str | None:
    """What to say where a dependency is not installed; None for any other module, whose traceback tells more."""
    package = next((package for package, module in IMPORTED.items() if module == error.name), None)
    return _line(package) if package else None


def _line(package: str) -> str:
    return (
        f"the package {package} is not installed in this Python ({sys.executable}); run make setup and use "
        f".venv/bin/python, or install it: {sys.executable} -m pip install {package}"
    )
