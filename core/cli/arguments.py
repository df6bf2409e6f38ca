"""The command line's grammar: every command, its options and its help."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.cli.hosts_arguments import add_hosts
from core.contracts.states import RunState

EXPORT_FORMATS = ("csv", "parquet", "tensorboard")

_EXIT_CODES = "exit codes: 0 done, 1 the run failed or was lost, 2 wrong usage or invalid input, 3 the machine is not as needed, 4 the run was stopped"


def _with_json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    return parser


def _add_runs(runs: argparse.ArgumentParser) -> None:
    acts = runs.add_subparsers(dest="act", required=True, metavar="ACT")
    listing = _with_json(acts.add_parser("list", help="list runs, newest first"))
    listing.add_argument(
        "--state", action="append", choices=[s.value for s in RunState], default=[], help="only this state; repeatable"
    )
    listing.add_argument("--kind", action="append", default=[], help="only this kind; repeatable")
    listing.add_argument("--text", default="", help="only runs whose name, id or tags contain this")
    listing.add_argument("--sort", default="created", help="a column, or metric:NAME")
    listing.add_argument("--ascending", action="store_true", help="smallest first")
    listing.add_argument("--limit", type=int, default=50, help="how many at most (default 50)")
    for act, help_text in (
        ("show", "show one run"),
        ("stop", "save a checkpoint and stop"),
        ("resume", "go on from the last checkpoint"),
        ("pause", "save and end a run's work for now; its devices are free meanwhile"),
        ("continue", "let a paused run go on"),
        ("give-up", "count a run as lost whose hosts do not answer any more"),
        ("retry", "resume an ended run, on the same hosts or on others"),
        ("fetch", "bring checkpoints or artifacts of a run on other hosts here"),
    ):
        one = _with_json(acts.add_parser(act, help=help_text))
        one.add_argument("run_id", metavar="ID", help="the run's id, or its unambiguous beginning or end")
        if act in ("stop", "resume", "retry"):
            one.add_argument("--follow", action="store_true", help="wait until the run has ended")
        if act == "retry":
            one.add_argument("--hosts", default="", metavar="A,B", help="run on these hosts instead, the head first")
        if act == "fetch":
            one.add_argument(
                "--what", choices=("checkpoints", "artifacts"), default="checkpoints", help="default: checkpoints"
            )
    logs = _with_json(acts.add_parser("logs", help="print what a run's processes printed"))
    logs.add_argument("run_id", metavar="ID")
    logs.add_argument("--follow", action="store_true", help="go on until the run has ended")
    logs.add_argument("--node", default="", help="only this node of a run on several (default: all, merged)")
    logs.add_argument("--tail-bytes", type=int, default=0, help="only the last so many bytes")
    profiled = _with_json(acts.add_parser("profile", help="record where the next steps of a training spend their time"))
    profiled.add_argument("run_id", metavar="ID", help="the run's id, or its unambiguous beginning or end")
    profiled.add_argument("--steps", type=int, default=3, help="how many steps to record (default 3)")
    profiled.add_argument("--rank", type=int, default=None, help="which rank of the first node (default 0)")
    profiled.add_argument("--last", action="store_true", help="show the newest profile; record none")
    for act, help_text in (("delete", "move runs to the bin"), ("restore", "take runs back out of the bin")):
        many = _with_json(acts.add_parser(act, help=help_text))
        many.add_argument("run_ids", metavar="ID", nargs="+")
    purge = _with_json(acts.add_parser("purge", help="remove runs in the bin for good, to free their disk space"))
    purge.add_argument("run_ids", metavar="ID", nargs="*", help="runs in the bin")
    purge.add_argument("--all", action="store_true", help="everything in the bin")
    _with_json(acts.add_parser("rebuild", help="make the index anew from the run directories"))
    export = _with_json(acts.add_parser("export", help="write a run's metrics to a file"))
    export.add_argument("run_id", metavar="ID")
    export.add_argument("--format", choices=EXPORT_FORMATS, default="csv")
    export.add_argument(
        "--output", default="", help="target file or folder (default: ID with the format's ending, here)"
    )


def _add_placement(run: argparse.ArgumentParser) -> None:
    """Where a run goes; each option takes the place of the spec's own."""
    where = run.add_mutually_exclusive_group()
    where.add_argument("--hosts", default="", metavar="A,B", help="run on these hosts, the head first")
    where.add_argument("--slurm", default="", metavar="NAME", help="submit to the Slurm of this host (local: this one)")
    where.add_argument("--kubernetes", default="", metavar="CONTEXT", help="submit to this context of the kubeconfig")
    run.add_argument("--devices", default="", help="GPUs: auto, cpu, indices such as 0,1, or per host: 'a=0,1 b=2'")
    run.add_argument("--queue", action="store_true", help="wait on the hosts until the devices are free")
    run.add_argument("--no-check", action="store_true", help="launch on hosts without looking at them first")
    run.add_argument("--dry-run", action="store_true", help="print the plan, the script or the manifest; start nothing")


def _add_check_layouts(layouts: argparse.ArgumentParser) -> None:
    layouts.add_argument(
        "--devices",
        choices=("auto", "cpu", "cuda", "xpu"),
        default="auto",
        help="what to run on (default: what is there)",
    )
    layouts.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="only layouts of N processes (default: 2, or the layouts')",
    )
    layouts.add_argument("--layout", action="append", default=[], metavar="NAME", help="only this one; repeatable")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pilothouse",
        description="Train, compress, measure and serve models. Without a command, the window opens.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    parser.add_argument("--quit-when-ready", action="store_true", help="open the window, measure the start, and quit")
    parser.add_argument("--json", action="store_true", help="with --quit-when-ready: print the measurement as JSON")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    quick = _with_json(commands.add_parser("quickstart", help="train, compress and measure a digit classifier"))
    quick.add_argument("--epochs", type=int, default=None, help="training epochs (default: the example's)")
    quick.add_argument("--seed", type=int, default=None, help="seed of data order and weights (default: the example's)")
    run = _with_json(commands.add_parser("run", help="launch a run from a spec", epilog=_EXIT_CODES))
    run.add_argument(
        "spec", metavar="SPEC.toml", help="a spec file, or the name of a shipped example such as digits.toml"
    )
    run.add_argument("--follow", action="store_true", help="wait until the run has ended, showing its progress")
    _add_placement(run)
    _add_runs(commands.add_parser("runs", help="list, show, stop, resume, delete, export runs"))
    sweep = commands.add_parser("sweep", help="show what a sweep found; it is launched with: run SWEEP.toml")
    sweep_acts = sweep.add_subparsers(dest="act", required=True, metavar="ACT")
    shown = _with_json(sweep_acts.add_parser("show", help="trials, importance of parameters, and the best"))
    shown.add_argument("run_id", metavar="ID", help="the sweep's id, or its unambiguous beginning or end")
    add_hosts(commands.add_parser("hosts", help="add, list, check and set up the hosts that runs can go to"))
    image = _with_json(commands.add_parser("image", help="write what a container image for Kubernetes is built from"))
    image.add_argument("folder", type=Path, help="where to write the Containerfile and the worker package")
    image.add_argument("--base", default="", help="image to start from (default: Python's own)")
    packages = ("torch", "train", "infer", "compress")
    image.add_argument("--packages", default="train", choices=packages, help="further packages (default: train)")
    hardware = _with_json(commands.add_parser("hardware", help="show what this machine has"))
    hardware.add_argument(
        "--measure", action="store_true", help="measure peak arithmetic and memory bandwidth (seconds)"
    )
    layouts_help = "prove that parallel layouts train here as one process does"
    _add_check_layouts(_with_json(commands.add_parser("check-layouts", help=layouts_help)))
    return parser
