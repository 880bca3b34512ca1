"""The entry: `python -m ssl_lightning`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys

from ssl_lightning import arguments
from ssl_lightning.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 (a sweep's job failed), 2 (a user's mistake), 130, 143."""
    try:
        asked = arguments.parse(sys.argv[1:] if argv is None else argv)
        if asked.help:
            from ssl_lightning import help

            print(help.text((asked.config_dir,) if asked.config_dir else ()))
            return 0
        if asked.version:
            import ssl_lightning

            print(f"ssl_lightning {ssl_lightning.__version__}")
            return 0
        if asked.multirun and not asked.cfg:
            from ssl_lightning import sweep

            return sweep.main(asked)
        from ssl_lightning import build

        return build.main(asked)
    except UserError as error:
        from ssl_lightning import secrets

        secrets.mask_words(sys.argv[1:] if argv is None else argv)  # what is typed under a secret's name is known now
        print(f"error: {secrets.hide(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
