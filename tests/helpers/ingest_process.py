"""A process that folds a run into a history in small batches until all is folded, for tests that kill or race it.

Usage: python -m tests.helpers.ingest_process DATABASE RUN_DIR LIMIT_BYTES. Prints a line after each batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from core.history.history import History
from core.runlog.tail import read_batch


def main(database: Path, run_dir: Path, limit_bytes: int) -> None:
    history = History.open(database)
    while True:
        batch = read_batch(run_dir, history.offsets(run_dir.name), limit_bytes)
        if batch.is_empty:
            break
        history.ingest(run_dir, batch)
        print("batch", flush=True)
    history.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
