"""The grammar of ``pilothouse hosts``. Says nothing of what the acts do; see ``core.cli.hosts``."""

from __future__ import annotations

import argparse
from typing import Any


def add_hosts(hosts: argparse.ArgumentParser) -> None:
    """Add the acts on hosts and their options."""
    acts = hosts.add_subparsers(dest="act", required=True, metavar="ACT")
    _add_add(_act(acts, "add", "connect to a host and keep it"))
    listing = _act(acts, "list", "list the hosts that were added")
    listing.add_argument("--config", action="store_true", help="list those of your ssh config instead")
    check = _act(acts, "check", "look at hosts, and at what lies between them: every finding with its remedy")
    check.add_argument("names", metavar="NAME", nargs="+", help="the hosts, the head of a run first")
    check.add_argument("--spec", default="", metavar="SPEC.toml", help="also what this run would need there")
    _with_yes(check)
    _add_install(_act(acts, "install", "make, renew or take into use the Python environment of a host"))
    remove = _named(_act(acts, "remove", "forget a host; its runs stay on it"))
    remove.add_argument("--runtime", action="store_true", help="first remove the Python environment made there")
    _with_yes(remove)
    queue = _named(_act(acts, "queue", "show the runs that hold devices of a host or wait for them"))
    queue.add_argument(
        "--move", nargs=2, metavar=("ID", "POSITION"), help="give a waiting run another place; 1 is next"
    )
    _with_yes(queue)
    _with_yes(_named(_act(acts, "trust", "show a host's key and trust it from now on")))


def _act(acts: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = acts.add_parser(name, help=help_text)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    return parser


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", help="the host's name")
    return parser


def _with_yes(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--yes", action="store_true", help="trust an unknown host key; its fingerprint is printed")
    return parser


def _add_add(add: argparse.ArgumentParser) -> None:
    _with_yes(_named(add))
    add.add_argument("--address", default="", help="host name or IP address (default: NAME)")
    add.add_argument("--user", default="", help="user there (default: of your ssh config, else yours)")
    add.add_argument(
        "--port", type=int, default=0, help="port of its SSH server (default: of your ssh config, else 22)"
    )
    add.add_argument("--identity", default="", metavar="FILE", help="private key to log in with")
    add.add_argument("--jump", default="", metavar="A,B", help="hosts to hop over, outermost first")
    add.add_argument("--alias", default="", metavar="HOST", help="take the rest from this Host of your ssh config")
    add.add_argument("--work-dir", default="~/.pilothouse", help="folder there for runs (default: ~/.pilothouse)")
    add.add_argument("--peer-address", default="", help="address by which other hosts reach it (default: found)")
    add.add_argument("--unchecked", action="store_true", help="keep it without connecting now")


def _add_install(install: argparse.ArgumentParser) -> None:
    _with_yes(_named(install))
    install.add_argument("--managed", action="store_true", help="an environment of its own, made with uv (default)")
    install.add_argument(
        "--python",
        default="",
        metavar="PATH",
        help="use this interpreter of the host as it is; with --managed: build on it",
    )
    install.add_argument(
        "--prelude", action="append", default=None, metavar="LINE", help="shell line run before; repeatable"
    )
    install.add_argument("--wrapper", default=None, metavar="WORDS", help="such as 'apptainer exec --nv image.sif'")
    install.add_argument("--torch-backend", default="", metavar="BUILD", help="auto, cpu, cu128, ... (default: auto)")
    install.add_argument(
        "--extra",
        action="append",
        default=None,
        metavar="NAME",
        help="torch, train, infer, compress, or a requirement such as 'transformers>=4.50'; repeatable",
    )
    install.add_argument("--from-here", action="store_true", help="download packages here and send them")
    install.add_argument("--repair", action="store_true", help="try it out, and renew it only where that fails")
