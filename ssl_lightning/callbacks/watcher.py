"""The base of callbacks that look on: what fails in one of them is said and left out, and the run goes on."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback

from ssl_lightning.core.distributed import world_size

log = logging.getLogger("ssl_lightning")

HOOKS: tuple[str, ...] = ("on_train_batch_start", "on_train_batch_end", "on_validation_batch_end")
HOOKS += ("on_validation_epoch_end", "step_metrics")


class Watcher(Callback):
    """A callback that only looks on, at training and validation.

    An odd or tiny data set may be more than it was made for. What it raises in one of `HOOKS` is said, once for each,
    and what it would have measured stays blank. Not so an OSError (a full disk), and, where several processes wait for
    each other in these hooks, what torch raises: those end it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in HOOKS:
            if name in cls.__dict__:
                setattr(cls, name, _looking_on(cls.__dict__[name]))


def _looking_on(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def watched(self: Watcher, *args: Any, **kwargs: Any) -> Any:
        try:
            return hook(self, *args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and world_size() > 1:
                raise
            said = self.__dict__.setdefault("_said_of", set())
            if hook.__name__ not in said:
                said.add(hook.__name__)
                why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                log.warning("%s measures nothing here, and the run goes on: %s", type(self).__name__, why)
            return {} if hook.__name__ == "step_metrics" else None

    return watched
