"""Optimizers, schedules and parameter groups: how a published recipe's numbers become a step.

Each name is imported when it is first asked for: `from ssl_lightning.optim import OptimizerRecipe`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.optim.lars import LARS as LARS
    from ssl_lightning.optim.recipe import OptimizerRecipe as OptimizerRecipe
    from ssl_lightning.optim.schedules import Constant as Constant
    from ssl_lightning.optim.schedules import WarmupCosine as WarmupCosine

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "Constant": "schedules",
    "LARS": "lars",
    "OptimizerRecipe": "recipe",
    "WarmupCosine": "schedules",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
