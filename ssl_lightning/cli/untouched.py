"""What a run changes of the process that it runs in, put back: for a run that is called from a user's own program."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from ssl_lightning.core import progress

# Settings of torch as (read, write, what a run begins with; None: as it is found).
Setting = tuple[Callable[[], Any], Callable[[Any], Any], Any]


@contextlib.contextmanager
def hydra_kept() -> Iterator[None]:
    """Compose configs inside a program that may be one of Hydra's own (`@hydra.main`)."""
    instance = GlobalHydra.instance()
    before = instance.hydra
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Inside, a run finds what a fresh process has; at the end all is as it was before.

    Kept: the random states of Python, numpy and torch; torch's default dtype and device, deterministic flags, number of
    threads, precision of matrix products, cudnn's switches and grad mode; warning filters; levels, handlers and
    switches of loggers; environment variables; the current folder; signal handlers; sys.argv and sys.path.
    """
    import lightning  # noqa: F401  (what importing it sets is not a run's doing)
    import torch

    with contextlib.ExitStack() as back:
        back.enter_context(warnings.catch_warnings())
        back.callback(progress.watched, False)
        for keep in (_environment, _folder, _loggers, _handlers, _lists, _random, _random_of_devices):
            back.callback(keep())
        for read, write, fresh in _settings():
            before = read()
            back.callback(_put_back, read, write, before)
            if fresh is not None and before != fresh:
                write(fresh)
        back.enter_context(torch.inference_mode(False))
        back.enter_context(torch.enable_grad())
        yield


def _put_back(read: Callable[[], Any], write: Callable[[Any], Any], before: Any) -> None:
    if read() != before:
        write(before)


def _settings() -> list[Setting]:
    import torch

    def flags() -> tuple[bool, bool]:
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), warn_only

    def anomaly() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def device(name: str) -> None:
        torch.set_default_device(None if name == "cpu" else name)

    cudnn = torch.backends.cudnn
    return [
        (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        (lambda: str(torch.get_default_device()), device, "cpu"),
        (flags, lambda on: torch.use_deterministic_algorithms(on[0], warn_only=on[1]), None),
        (anomaly, lambda on: torch.autograd.set_detect_anomaly(*on), None),
        (torch.get_num_threads, torch.set_num_threads, None),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, None),
        (lambda: cudnn.benchmark, lambda on: setattr(cudnn, "benchmark", on), None),
        (lambda: cudnn.deterministic, lambda on: setattr(cudnn, "deterministic", on), None),
    ]


# ---- each gives the function that puts it back -------------------------------------------------------------------


def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def back() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})

    return back


def _folder() -> Callable[[], None]:
    before = os.getcwd()

    def back() -> None:
        with contextlib.suppress(OSError):  # it may be gone
            if os.getcwd() == before:
                return
        with contextlib.suppress(OSError):
            os.chdir(before)

    return back


def _loggers() -> Callable[[], None]:
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    before = [(logger, _of_logger(logger)) for logger in known if isinstance(logger, logging.Logger)]

    def back() -> None:
        for logger, (level, disabled, propagate, handlers) in before:
            if _of_logger(logger) != (level, disabled, propagate, handlers):
                logger.setLevel(level)
                logger.disabled, logger.propagate, logger.handlers = disabled, propagate, handlers

    return back


def _of_logger(logger: logging.Logger) -> tuple[int, bool, bool, list[logging.Handler]]:
    return logger.level, logger.disabled, logger.propagate, list(logger.handlers)


def _handlers() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():  # no other may set them
        return lambda: None
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, handler)

    return back


def _lists() -> Callable[[], None]:
    argv, path = list(sys.argv), list(sys.path)

    def back() -> None:
        for now, before in ((sys.argv, argv), (sys.path, path)):
            if now != before:
                now[:] = before

    return back


def _random() -> Callable[[], None]:
    import numpy as np
    import torch

    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = copy.deepcopy(np.random.get_state())  # noqa: NPY002  (whoever uses it finds it as it was)

    def back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)

    return back


def _random_of_devices() -> Callable[[], None]:
    """Of GPUs. Where none was used yet, each has the seed that the CPU was given last; asking would start CUDA."""
    import torch

    cuda, seed = torch.cuda, torch.initial_seed()
    states = cuda.get_rng_state_all() if cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def back() -> None:
        if states is not None:
            cuda.set_rng_state_all(states)
        elif cuda.is_initialized():
            cuda.manual_seed_all(seed)
        if mps is not None:
            torch.mps.set_rng_state(mps)

    return back
