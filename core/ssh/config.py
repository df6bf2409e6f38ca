"""What the user's ssh config says of a host: asked of OpenSSH itself (``ssh -G``), else read with paramiko.

OpenSSH knows every keyword, so a host that ``ssh NAME`` reaches is reached here. Without it, ``Include`` is followed
and ``Match`` blocks are left out: paramiko takes criteria that it does not know as matching, and runs ``Match exec``.
Nothing here connects, and no file is written.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.contracts.errors import UserError
from core.contracts.hosts import ConfigHost, HostRecord
from core.ssh.config_text import aliases, without_match_blocks
from core.ssh.openssh import asked

if TYPE_CHECKING:
    import paramiko

DEFAULT_PORT = 22
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_JUMPS = 8
_HOST = re.compile(r"[A-Za-z0-9._:%\[\]-]+")
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?/?")
_PERCENT = "\ue000"
"""Stands for the percent sign while paramiko reads: it would put in tokens by itself, unchecked and only some."""
_NEXT_PATH = re.compile(r"[ \t]+(?=[/~])")
_SHELL_CHARACTERS = set("'`\"$\\;&<>|(){}\n\r\t ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how to connect, with everything decided.

    Attributes:
        name: As the user knows it, for messages.
        identity_files: Private keys to offer, in order.
        is_explicit: The keys were named by the user (else they are those that every user has).
        only_these: No other key of the agent is offered (``IdentitiesOnly``).
        agent: Socket of the agent; empty for none.
        known_hosts: Files of the user and the machine that name host keys; read only.
        key_alias: Name by which the host's key is known; empty for its address.
        proxy_command: Command whose input and output are the connection; empty for none.
        jumps: Hosts to hop over, outermost first.
    """

    name: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    is_explicit: bool = False
    only_these: bool = False
    agent: str = ""
    known_hosts: tuple[Path, ...] = ()
    key_alias: str = ""
    proxy_command: str = ""
    jumps: tuple[Target, ...] = ()
    connect_timeout_s: float = 15.0

    @property
    def login(self) -> str:
        """User and host, for messages and for kept passwords."""
        return f"{self.user}@{self.hostname}" + (f":{self.port}" if self.port != DEFAULT_PORT else "")


@dataclass(frozen=True, slots=True)
class _Settings:
    """The config's words on one host: keyword in lower case to its values."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def one(self, keyword: str) -> str:
        """Return the value; empty when there is none, or it is ``none``."""
        found = self.values.get(keyword, ("",))[0]
        return "" if found.lower() == "none" else found


def list_hosts(config_file: Path | None = None) -> tuple[ConfigHost, ...]:
    """Return the hosts that the config names; patterns are left out. Reads files only; no program is started.

    Args:
        config_file: Instead of the user's own.
    """
    path = config_file or Path.home() / ".ssh" / "config"
    text = without_match_blocks(path)
    if not text:
        return ()
    parsed = _parsed(text)
    found: list[ConfigHost] = []
    for alias in aliases(text):
        if _HOST.fullmatch(alias) is None or alias.startswith("-"):
            continue
        settings = _from_paramiko(parsed, alias)
        port = settings.one("port")
        found.append(
            ConfigHost(
                alias=alias,
                hostname=settings.one("hostname") or alias,
                user=settings.one("user") or getpass.getuser(),
                port=int(port) if port.isdigit() else DEFAULT_PORT,
            )
        )
    return tuple(found)


def resolve(record: HostRecord, config_file: Path | None = None) -> Target:
    """Return where and how to connect to a host.

    Fields of the record that are set take precedence over the config.

    Args:
        record: What the user entered.
        config_file: Instead of the user's and the machine's own.

    Raises:
        UserError: The record names no host, or something that cannot be one; or jumps go round in circles.
    """
    wanted = record.alias or record.address
    if not wanted:
        raise UserError(f"{record.name} has no address.", "Enter its address, or choose a host of your ssh config.")
    return _resolve(record, wanted, config_file, depth=0)


def _resolve(record: HostRecord, wanted: str, config_file: Path | None, depth: int) -> Target:
    if depth > _MAX_JUMPS:
        raise UserError(
            f"The way to {record.name} goes over more than {_MAX_JUMPS} hosts.",
            "Look for a ProxyJump in your ssh config that leads back to itself.",
        )
    _check_host(wanted)
    settings = _settings(wanted, record.user, config_file)
    hostname = record.address or settings.one("hostname") or wanted
    _check_host(hostname)
    port = record.port or int(settings.one("port") or DEFAULT_PORT)
    user = record.user or settings.one("user") or getpass.getuser()
    tokens = _tokens(hostname, wanted, port, user)
    keys, is_explicit = _identity_files(record, settings, tokens)
    jumps = record.jump or _split_jumps(settings.one("proxyjump"))
    command = "" if jumps else settings.one("proxycommand")
    return Target(
        name=record.name,
        hostname=hostname,
        port=port,
        user=user,
        identity_files=keys,
        is_explicit=is_explicit,
        only_these=bool(record.identity_file) or settings.one("identitiesonly") == "yes",
        agent=_agent(settings, tokens),
        known_hosts=_known_hosts(settings, tokens),
        key_alias=settings.one("hostkeyalias"),
        proxy_command=_proxy_command(command, tokens) if command else "",
        jumps=_chain(jumps, config_file, record.connect_timeout_s, depth),
        connect_timeout_s=record.connect_timeout_s,
    )


def _chain(jumps: tuple[str, ...], config_file: Path | None, timeout_s: float, depth: int) -> tuple[Target, ...]:
    """Return the hops; only the outermost follows a ProxyJump of its own, as with ``ssh -J``."""
    hops: list[Target] = []
    for index, word in enumerate(jumps):
        match = _JUMP.fullmatch(word.strip())
        if match is None:
            raise UserError(f"{word!r} is not a host to jump over.", "Write it as [user@]host[:port].")
        host = match["host"].strip("[]")
        hop = HostRecord(
            name=re.sub(r"[^A-Za-z0-9._-]", "-", host).lstrip("._-")[:63] or "jump",
            alias=host,
            user=match["user"] or "",
            port=int(match["port"] or 0),
            connect_timeout_s=timeout_s,
        )
        target = _resolve(hop, host, config_file, depth + 1)
        if index == 0:
            hops.extend(target.jumps)
        hops.append(_without_jumps(target, keep_command=index == 0))
    return tuple(hops)


def _without_jumps(target: Target, *, keep_command: bool) -> Target:
    return replace(target, jumps=(), proxy_command=target.proxy_command if keep_command else "")


def _split_jumps(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _check_host(host: str) -> None:
    """A name that begins with a dash would be an option of ssh; one with a space or a quote is no host's."""
    if host.startswith("-") or _HOST.fullmatch(host) is None:
        raise UserError(f"{host!r} cannot be the name or address of a host.", "Look for a typing error in it.")


def _settings(wanted: str, user: str, config_file: Path | None) -> _Settings:
    answer = asked(wanted, user, config_file)
    if answer is not None:
        return _from_openssh(answer)
    path = config_file or Path.home() / ".ssh" / "config"
    return _from_paramiko(_parsed(without_match_blocks(path)), wanted)


def _from_openssh(text: str) -> _Settings:
    values: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        values[keyword] = (*values.get(keyword, ()), value)
    defaults = values.get("identityfile", ())
    if len(defaults) > 3 and all(re.fullmatch(r"~/\.ssh/id_\w+", value) for value in defaults):
        del values["identityfile"]  # ssh lists what it would try by itself; nobody named these
    return _Settings(values)


def _parsed(text: str) -> paramiko.SSHConfig:
    import paramiko

    return paramiko.SSHConfig.from_text(text.replace("%", _PERCENT))


def _from_paramiko(parsed: paramiko.SSHConfig, wanted: str) -> _Settings:
    found: dict[str, tuple[str, ...]] = {}
    for keyword, value in parsed.lookup(wanted).items():
        texts = value if isinstance(value, list) else [str(value)]
        found[keyword] = tuple(text.replace(_PERCENT, "%") for text in texts)
    if "hostname" in found:
        found["hostname"] = (_expanded(found["hostname"][0], {"%": "%", "h": wanted}),)
    return _Settings(found)


def _tokens(hostname: str, wanted: str, port: int, user: str) -> dict[str, str]:
    return {
        "%": "%",
        "d": str(Path.home()),
        "h": hostname,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": wanted,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
        "i": str(os.getuid()) if hasattr(os, "getuid") else "",
    }


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    with_tokens = re.sub("%(.)", lambda match: tokens.get(match[1], match[0]), text)
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), with_tokens)


def _path(text: str, tokens: Mapping[str, str]) -> Path:
    return Path(_expanded(text.strip('"'), tokens)).expanduser()


def _identity_files(
    record: HostRecord, settings: _Settings, tokens: Mapping[str, str]
) -> tuple[tuple[Path, ...], bool]:
    if record.identity_file:
        return (Path(record.identity_file).expanduser(),), True
    named = [value for value in settings.values.get("identityfile", ()) if value.lower() != "none"]
    if named:
        return tuple(dict.fromkeys(_path(value, tokens) for value in named)), True
    folder = Path.home() / ".ssh"
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).is_file()), False


def _agent(settings: _Settings, tokens: Mapping[str, str]) -> str:
    value = settings.values.get("identityagent", ("SSH_AUTH_SOCK",))[0].strip('"')
    if value.lower() == "none":
        return ""
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:], "")
    return str(_path(value, tokens))


def _known_hosts(settings: _Settings, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    found: list[Path] = []
    for keyword, default in (
        ("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
        ("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"),
    ):
        value = settings.values.get(keyword, (default,))[0]
        # ``ssh -G`` prints paths with spaces without quotes: a new one begins at a slash or a tilde.
        found += [_path(one, tokens) for one in _NEXT_PATH.split(value) if one and one.lower() != "none"]
    return tuple(found)


def _proxy_command(command: str, tokens: Mapping[str, str]) -> str:
    """Return the command with its tokens; they must not hold anything that a shell would act upon."""
    for token in set(re.findall("%([hnr])", command)):
        if _SHELL_CHARACTERS & set(tokens[token]):
            raise UserError(
                f"{tokens[token]!r} cannot be handed to the ProxyCommand of your ssh config.",
                "Use a user and host name without quotes, spaces and signs.",
            )
    return _expanded(command, tokens)
