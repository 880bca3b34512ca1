"""A lock on a file: one command at a time works in a run's folder, where the file system has locks."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from ssl_lightning.core.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What file systems without locks answer; some network file systems have none.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
WAIT = 10.0  # seconds that a killed run's loader processes may still hold its lock


def locked(file: Path, owner: Path) -> int:
    """An open, locked file; the system unlocks it however this process ends."""
    start = time.monotonic()
    while True:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "there are no locks on this system")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.fstat(descriptor).st_ino == file.stat().st_ino:  # not one that was just removed
                return descriptor
        except BlockingIOError:
            if time.monotonic() - start > WAIT:
                os.close(descriptor)
                raise UserError(f"another process is at work in {owner}; give this run another name=") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            why = error.strerror or error
            print(f"{owner} cannot be locked ({why}): do not start the same run twice at once", file=sys.stderr)
            return descriptor
        os.close(descriptor)
        time.sleep(0.1)
