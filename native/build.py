"""Builds the native probe for this machine ahead of time and prints where it lies; the program does so by itself on demand."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.hardware.native import NativeProbe


def main() -> int:
    """Build into the folder given, or the user's cache; return 0 when the probe is there."""
    probe = NativeProbe.find(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(probe.program or probe.reason)
    return 0 if probe.program else 1


if __name__ == "__main__":
    sys.exit(main())
