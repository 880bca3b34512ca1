"""A network, with or without a head, as an ONNX file for any batch size, compared with torch before it is kept."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import evaluating

OPSET = 18
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
BATCHES = (1, 3)  # that are compared; the file is made with another one
CLOSE = 1e-3  # of the largest feature: float32 in another order of sums stays far below


def need_packages() -> None:
    """Say so before anything is written."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        fix = 'pip install "ssl-lightning[export]", or leave onnx out of stage.formats'
        raise UserError(f"onnx needs the package {absent[0]}; {fix}")


def write(
    backbone: nn.Module, shape: Sequence[int], path: Path, outputs: str = "features", classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Write `path`; returns what there is to say of it, with the largest difference of a feature from torch's.

    Args:
        outputs: what the file calls them.
        classes: names of the outputs, for the file's metadata, `classes`, a JSON list.

    Raises:
        UserError: a network that torch cannot export, or whose file gives other features.
    """
    net = backbone.cpu().float()
    x = waves(2, shape)
    with evaluating(net), torch.no_grad(), _quiet():
        try:
            torch.onnx.export(
                net, (x,), path, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=["input"], output_names=[outputs], dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
        except Exception as error:  # what an exporter cannot do it says in a hundred ways
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"this network ({type(net).__name__}) cannot be written as ONNX: {why}") from error
        if classes:
            _name(path, classes)
        difference, largest = _compared(net, shape, path)
        found = net(x[:1]).shape
    if not difference <= CLOSE * max(largest, 1.0):
        raise UserError(
            f"the {outputs} of the ONNX file differ from torch's by up to {difference:.2g} of {largest:.2g}"
        )
    sizes = {"input": ["batch", *shape], outputs: ["batch", *found[1:]]}
    told = {"classes": list(classes)} if classes else {}
    return {"opset": OPSET, **sizes, **told, "max_difference": difference, "largest_feature": largest}


def _name(path: Path, classes: Sequence[str]) -> None:
    """Put the names of the classes into the file's metadata."""
    import onnx

    found = onnx.load(path)
    onnx.helper.set_model_props(found, {"classes": json.dumps(list(classes))})
    onnx.save(found, path)


def waves(count: int, shape: Sequence[int]) -> Tensor:
    """Inputs (count, *shape) in [-1, 1], the same in each call: no two are alike, and nothing is drawn."""
    return torch.linspace(-2, 2, count * math.prod(shape)).mul(97).sin().view(count, *shape)


def _compared(net: nn.Module, shape: Sequence[int], path: Path) -> tuple[float, float]:
    """(the largest difference of a feature between onnxruntime and torch, the largest feature)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pairs = list[tuple[Tensor, Tensor]]()
    for count in BATCHES:
        x = waves(count, shape)
        pairs.append((torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), net(x)))
    return (
        max(float((theirs - ours).abs().max()) for theirs, ours in pairs),
        max(float(ours.abs().max()) for _, ours in pairs),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its warnings about itself."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
