"""``pilothouse image``: the folder from which a container image for runs on Kubernetes is built."""

from __future__ import annotations

import argparse
import shlex

from core.cli.output import ExitCode, print_json, print_text
from core.fleet.kubernetes.image import DEFAULT_BASE, write_build_folder


def image(options: argparse.Namespace) -> int:
    """Write the folder and tell how an image is built from it."""
    made = write_build_folder(options.folder, base=options.base or DEFAULT_BASE, extras=options.packages)
    build = f"docker build -f {shlex.quote(str(made))} -t YOUR-IMAGE {shlex.quote(str(made.parent))}"
    if options.json:
        print_json({"containerfile": str(made), "command": build})
    else:
        print_text(f"Wrote {made}. Build and push it, then name the image in the spec:\n  {build}")
    return ExitCode.OK
