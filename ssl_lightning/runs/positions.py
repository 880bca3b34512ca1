"""Positions, class token and registers of a foreign ViT, brought to those of the backbone, which computes the same.

Only what leaves the function the same is filled in: a bias of zeros where the file has none, and no position for a
register. Positions are resampled to the backbone's grid as timm resamples them (bicubic, antialiased).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

State = dict[str, Tensor]


def settle(state: State, backbone: nn.Module, wanted: Mapping[str, Tensor]) -> list[str]:
    """Changes `state` in place where the backbone is a ViT of timm's kind; returns the words on what was changed."""
    notes = []
    if "pos_embed" in state and "pos_embed" in wanted and state["pos_embed"].ndim == wanted["pos_embed"].ndim == 3:
        note = _positions(state, backbone, wanted)
        notes += [note] if note else []
    zeros = [key for key in wanted if key not in state and _may_be_zero(key, state)]
    for key in zeros:
        state[key] = torch.zeros_like(wanted[key])
    if zeros:
        notes.append(f"{len(zeros)} biases that are not there are zero")
    return notes


def _may_be_zero(key: str, state: State) -> bool:
    """A linear layer without bias does what one with a bias of zeros does."""
    whole = key.endswith((".attn.qkv.bias", "patch_embed.proj.bias"))
    return whole and key.removesuffix("bias") + "weight" in state


def _positions(state: State, backbone: nn.Module, wanted: Mapping[str, Tensor]) -> str:
    there, here = state["pos_embed"], wanted["pos_embed"]  # (1, T, D) each
    grid = _grid(backbone)
    if grid is None or there.shape[2] != here.shape[2] or there.shape[0] != 1:
        return ""
    registers = int(state["reg_token"].shape[1]) if "reg_token" in state else 0
    classes = sum(key in state for key in ("cls_token", "dist_token"))
    prefix = here.shape[1] - grid[0] * grid[1]  # tokens before the patches that have positions here
    possible = [count for count in (classes, 0, classes + registers) if _side(there.shape[1] - count)]
    possible.sort(key=lambda count: there.shape[1] - count != grid[0] * grid[1])  # what need not be resampled is likely
    if not possible or (there.shape == here.shape and prefix in (classes, 0, classes + registers)):
        return ""
    count = possible[0]
    if 0 < prefix < count or (prefix < count and classes != 1):
        return ""
    before, patches = there[:, :count], there[:, count:]
    side = _side(patches.shape[1])
    note = ""
    if (side, side) != grid:
        patches = resampled(patches, side, grid)
        note = f"positions resampled from {side} x {side} to {grid[0]} x {grid[1]}"
    if prefix < count:  # the backbone adds positions to patches alone: those of other tokens join the tokens themselves
        state["cls_token"] = state["cls_token"] + before[:, :1]
        if count > 1:
            state["reg_token"] = state["reg_token"] + before[:, 1:]
        before = before[:, :0]
    elif prefix > count:
        before = torch.cat([before, before.new_zeros(1, prefix - count, before.shape[2])], 1)
    state["pos_embed"] = torch.cat([before, patches], 1)
    return note


def _side(patches: int) -> int:
    """The side of a square grid of so many patches, or 0."""
    side = math.isqrt(max(patches, 0))
    return side if side and side * side == patches else 0


def _grid(backbone: nn.Module) -> tuple[int, int] | None:
    embed: Any = getattr(backbone, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    return (int(grid[0]), int(grid[1])) if isinstance(grid, tuple) and len(grid) == 2 else None


def resampled(patches: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Positions (1, side * side, D) of a square grid -> (1, h * w, D) of another."""
    square = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    found = interpolate(square, size=grid, mode="bicubic", antialias=True)
    return found.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1).to(patches.dtype)
