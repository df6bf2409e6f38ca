"""What ``ssh_server.PasswordServer`` answers; apart from it because it needs paramiko's classes at import."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, Any

import paramiko

if TYPE_CHECKING:
    from tests.helpers.ssh_server import PasswordServer


class PasswordInterface(paramiko.ServerInterface):
    """One connection: its log-in in steps, and its commands."""

    def __init__(self, server: PasswordServer) -> None:
        self.server = server
        self.left = list(server.methods)

    def get_allowed_auths(self, username: str) -> str:
        return ",".join(self.left[:1])

    def _passed(self, method: str, right: bool) -> int:
        if not right or self.left[:1] != [method]:
            return paramiko.AUTH_FAILED
        self.left.pop(0)
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.left else paramiko.AUTH_SUCCESSFUL

    def check_auth_password(self, username: str, password: str) -> int:
        self.server.seen.append(password)
        return self._passed("password", username == self.server.user and password == self.server.password)

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return self._passed("publickey", username == self.server.user)

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        if self.left[:1] != ["keyboard-interactive"]:
            return paramiko.AUTH_FAILED
        return paramiko.InteractiveQuery("Log in", "", *[(text, echo) for text, echo, _ in self.server.prompts])

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        self.server.seen.extend(responses)
        return self._passed("keyboard-interactive", responses == [right for _, _, right in self.server.prompts])

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command), daemon=True).start()
        return True

    def _execute(self, channel: Any, command: bytes) -> None:
        done = subprocess.run(["/bin/sh", "-c", command.decode()], capture_output=True, check=False, timeout=60)
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()
