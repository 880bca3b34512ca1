"""What Lightning, torch and the system say of a wrong argument, as the one line that names it.

While something is built, a wrong argument ends in whatever the builder runs into: a UserError here. Once batches are
trained on, an exception is a bug and keeps its traceback; only a machine without room is told in one line even then.
"""

from __future__ import annotations

import errno
import os
import sysconfig
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_lightning.core import secrets
from ssl_lightning.core.errors import UserError

# What constructors raise for arguments that they cannot work with; a NameError or SyntaxError is never about these.
OF_ARGUMENTS: tuple[type[Exception], ...] = (TypeError, ValueError, ArithmeticError, LookupError, AssertionError)
OF_ARGUMENTS += (RuntimeError, AttributeError, ImportError)  # ImportError: of a package that an argument asks for
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# How torch says that there is no room: in an exception of its own, or in a RuntimeError.
NO_ROOM = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory")
# What torch says in the middle of a step of an argument that was given long before: of which one, and what to do.
IN_A_STEP = {
    "does not have a deterministic implementation": ("deterministic=true", "use deterministic=warn, or leave it out"),
    "No working C++ compiler found": ("stage.compile=true", "install one, or leave it out"),
}
SMALLER = "use a smaller data.batch_size, smaller images (data.image_size) or a smaller network"
LONGEST = 300
# Files of this package, of the standard library, and such as Python makes up.
INSTALLED = (f"{Path(__file__).parents[1]}{os.sep}", sysconfig.get_path("stdlib"), "<")
BUILDERS = ("ssl_lightning.core.one_line", "ssl_lightning.config.instantiate", "ssl_lightning.cli.trainers")


@contextmanager
def building(what: str, trusted: Collection[str] = ()) -> Iterator[None]:
    """A block that constructs `what` from a config's arguments: what these bring about becomes a UserError.

    Errors that pass through a module of the user's own (`trusted`) packages stay as they are: it is being written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = no_room(error)
        if said is None and (not _of_arguments(error) or _passes(error, trusted)):
            raise
        raise UserError(f"{what}: {said or text(error)}{'' if said else _where(error)}") from error


def of_run(error: Exception, folder: Path, trusted: Collection[str] = ()) -> UserError | None:
    """What an exception that ended a stage says to the user; None where it is a bug, to be seen whole."""
    said = no_room(error)
    if said is not None:
        return UserError(said)
    if isinstance(error, OSError):
        return _of_disk(error, folder)
    for word, (key, fix) in IN_A_STEP.items():
        if word in str(error):
            return UserError(f"{key}: {text(error).split('. ')[0]}; {fix}")
    if _of_arguments(error) and _before_the_first_batch(error) and not _passes(error, trusted):
        return UserError(f"trainer: {text(error)}")
    return None


def shown(target: str, arguments: Mapping[str, Any]) -> str:
    """A class with the plain ones of its arguments, short: `vit.ViT(image_size=32, patch_size=5)`."""
    plain = [f"{k}={v}" for k, v in arguments.items() if isinstance(v, bool | int | float | str | tuple)]
    listed = secrets.hide(", ".join(plain))
    return f"{'.'.join(target.split('.')[-2:])}({listed if len(listed) <= 120 else listed[:117] + '...'})"


def text(error: BaseException) -> str:
    """What an exception says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError | NotImplementedError):  # a KeyError's text is the key alone
        said = f"{type(error).__name__}: {said}"
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 3]}..."


def no_room(error: BaseException) -> str | None:
    """The line for a machine or GPU that has no memory left; None for every other error."""
    torchs = type(error).__name__ == "OutOfMemoryError"
    says_so = isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in NO_ROOM)
    if not (torchs or says_so or isinstance(error, MemoryError)):
        return None
    where = "the GPU" if torchs or "CUDA" in str(error) or "CUBLAS" in str(error) else "this machine"
    first = text(error).split(". ")[0]
    return f"{where} has no memory left ({first}); {SMALLER}"


def _of_disk(error: OSError, folder: Path) -> UserError | None:
    if error.errno in FULL:
        return UserError(f"the disk of {folder} is full; free some space, then run the same command")
    inside = error.filename and Path(str(error.filename)).absolute().is_relative_to(folder.absolute())
    if error.errno in CLOSED and inside:
        return UserError(f"cannot write {error.filename}: {error.strerror}; choose another folder with runs_dir=DIR")
    return None


def _of_arguments(error: BaseException) -> bool:
    return isinstance(error, OF_ARGUMENTS) or type(error).__module__.startswith("lightning.")


def _modules(error: BaseException) -> list[tuple[str, str]]:
    """(module, function) of each frame that an exception passed through, the innermost last."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [(str(frame.f_globals.get("__name__", "")), frame.f_code.co_name) for frame in frames]


def _passes(error: BaseException, packages: Collection[str]) -> bool:
    """Did it pass through code of the user's: of a trusted package, or of files that nobody has installed?"""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [file for file in files if not file.startswith(INSTALLED) and "-packages" not in file]
    return bool(own) or any(m == p or m.startswith(f"{p}.") for m, _ in _modules(error) for p in packages)


def _before_the_first_batch(error: BaseException) -> bool:
    """Was it raised by Lightning itself, in a fit that has not taken a batch yet?"""
    frames = _modules(error)
    if not frames or not frames[-1][0].startswith("lightning."):
        return False
    fits = any(module == "lightning.pytorch.trainer.trainer" and name == "fit" for module, name in frames)
    return fits and not any(name == "advance" for _, name in frames)


def _where(error: BaseException) -> str:
    """Where in this package it came from: that tells a bug of ours from a wrong argument."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("ssl_lightning.") and module not in BUILDERS:
            return f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return ""
