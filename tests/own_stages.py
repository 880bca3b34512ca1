"""Stages and a callback for the tests of the Python entry: they leave a mess, stop, or fail."""

import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder


def state() -> dict[str, Any]:
    """All that a call from Python has to leave as it was."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    return {
        "python's random state": random.getstate(),
        "numpy's": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "torch's": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.deterministic,
        "gradients": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "levels": {name: logging.getLogger(name).level for name in ("", "lightning", "lightning.pytorch", "mine")},
        "handlers of logs": list(logging.root.handlers),
        "disabled": logging.getLogger("mine").disabled,
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "argv": list(sys.argv),
        "path": list(sys.path),
    }


def spoil(run: RunFolder, how: str = "ends") -> dict[str, Any]:
    """Changes all of `state`; then ends, fails, or is refused."""
    before = state()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    for name in ("", "lightning", "lightning.pytorch", "mine"):
        logging.getLogger(name).setLevel(logging.CRITICAL + len(name))
    logging.root.addHandler(logging.NullHandler())
    logging.getLogger("mine").disabled = True
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("MINE", None)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_IGN)
    sys.argv.append("more")
    sys.path.insert(0, "nowhere")
    os.chdir(run.path)
    now = state()
    same = [key for key in before if before[key] == now[key]]
    assert same == ([] if threading.current_thread() is threading.main_thread() else ["signals"]), same
    os.chdir(before["folder"])  # the run's own path is relative
    if how == "fails":
        raise RuntimeError("this job fails")
    if how == "refused":
        raise UserError("this cannot be done")
    os.chdir("/")
    os.chdir(before["folder"])
    return {"knn_top1": 0.5}


def leaves(run: RunFolder) -> dict[str, Any]:
    """Ends somewhere else."""
    os.chdir("/")
    raise RuntimeError("this job fails")


def prints(run: RunFolder) -> dict[str, Any]:
    """Says something; so does another thread."""
    print("from the run")
    print("on stderr", file=sys.stderr)
    warnings.warn("of Python", UserWarning, stacklevel=1)
    other = threading.Thread(target=print, args=("from elsewhere",))
    other.start()
    other.join()
    return {}


def lacks(run: RunFolder) -> dict[str, Any]:
    """Needs a package that is not there."""
    raise ModuleNotFoundError("No module named 'timm'", name="timm")


def exact(run: RunFolder, seed: int) -> dict[str, Any]:
    """What a run begins with."""
    found = {"threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype())}
    return found | {"grad": torch.is_grad_enabled(), "draws": [random.random(), torch.rand(1).item()]}


class StopOnce(Callback):
    """Sends this process a signal in a step, where a file `stop` lies in the current folder, and removes that."""

    def __init__(self, step: int = 2, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and Path("stop").exists():
            Path("stop").unlink()
            os.kill(os.getpid(), self.number)
