"""The program on a host that takes copies in: ``python -P -m core.cli.receive WORK_DIR``, driven by ``core.fleet.copying``."""

from __future__ import annotations

import sys
from pathlib import Path

from core.fleet.receiving import serve


def main() -> int:
    """Take copies in from standard input until it ends; return the exit status."""
    return serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main())
