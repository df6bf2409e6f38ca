"""Finding a model's files: folders, runs, and the Hub, whose refusals come from a real server on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.models.huggingface import (
    check_generates,
    check_weights,
    count_parameters,
    find_folder,
    read_config,
    token_count,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"model_type": "llama", "hidden_size": 8}
REFUSALS = {
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model acme/gated is restricted."}),
    "gated-unknown": (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "You must be authenticated."}),
    "missing": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "private": (401, {"X-Error-Message": "Invalid username or password."}),
    "disabled": (403, {"X-Error-Code": "RepoDisabled", "X-Error-Message": "Access to this resource is disabled."}),
    "broken": (500, {}),
}


class Hub(BaseHTTPRequestHandler):
    """The parts of the Hub's API that a download asks."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/").removeprefix("/").split("/")[1]
        if name in REFUSALS:
            status, headers = REFUSALS[name]
            self._answer(status, b'{"error": "refused"}', headers)
        elif "/revision/" in self.path and not self.path.split("?")[0].endswith(("/main", COMMIT)):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif self.path.startswith("/api/models/"):
            if "/tree/" in self.path:
                told: object = [
                    {"type": "file", "path": "config.json", "size": len(json.dumps(CONFIG)), "oid": "1" * 40}
                ]
            else:
                told = {"id": f"acme/{name}", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        else:
            self._answer(200, json.dumps(CONFIG).encode(), {"X-Repo-Commit": COMMIT, "ETag": '"abc"'})

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ASK = """
import json, sys
from pathlib import Path
from core.contracts.errors import PilothouseError
from core.train.models.huggingface import find_folder
answers = []
for name, revision in json.loads(sys.argv[1]):
    try:
        folder = find_folder(name, runs_dir=Path("runs"), revision=revision)
        answers.append(["folder", sorted(p.name for p in folder.iterdir()), ""])
    except PilothouseError as error:
        answers.append([type(error).__name__, error.message, error.hint])
print(json.dumps(answers))
"""


def ask(endpoint: str, home: Path, *names: tuple[str, str], offline: bool = False) -> list[tuple[str, str, str]]:
    """Ask in a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "1" if offline else "",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "NO_PROXY": "*",
    }
    argv = [sys.executable, "-c", ASK, json.dumps(names)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


def test_the_hub_gives_files_or_says_plainly_why_not(hub: str, tmp_path: Path) -> None:
    names = ["open", *REFUSALS]
    asked = [*((f"acme/{name}", "") for name in names), ("acme/open", "v9"), ("a/b/c", ""), ("no name", "")]
    answers = ask(hub, tmp_path, *asked)
    by_name = dict(zip([*names, "revision", "deep", "spaces"], answers, strict=True))
    assert by_name["open"] == ("folder", ["config.json"], "")
    for name in ("gated", "gated-unknown"):
        kind, message, hint = by_name[name]
        assert kind == "UserError"
        assert "is gated" in message
        assert "Accept the licence" in hint
        assert "hf auth login" in hint
    kind, message, hint = by_name["missing"]
    assert (kind, message) == ("UserError", "There is no model acme/missing on the Hub that you may read.")
    assert "if it is private, log in" in hint
    kind, message, hint = by_name["private"]
    assert (kind, message) == ("UserError", "The Hub does not let you read acme/private (401).")
    assert "hf auth login" in hint
    assert by_name["disabled"][:2] == ("UserError", "acme/disabled was disabled on the Hub.")
    assert by_name["broken"][:2] == ("EnvironmentProblem", "The Hub answered 500 when asked for acme/broken.")
    assert by_name["revision"][:2] == ("UserError", "acme/open has no revision v9.")
    for name in ("deep", "spaces"):
        assert "is no name of a model on the Hub" in by_name[name][1]


def test_what_was_fetched_once_is_found_again_without_the_hub(hub: str, tmp_path: Path) -> None:
    (first,) = ask(hub, tmp_path, ("acme/open", ""))
    found, unknown = ask("http://127.0.0.1:9", tmp_path, ("acme/open", ""), ("acme/other", ""))
    assert found == first
    assert unknown[0] == "EnvironmentProblem"
    assert unknown[1] == "acme/other is not on this machine, and the Hugging Face Hub cannot be reached."
    found, unknown = ask(hub, tmp_path, ("acme/open", ""), ("acme/other", ""), offline=True)
    assert found == first
    assert "HF_HUB_OFFLINE" in unknown[2]


def test_folders_and_runs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder /nowhere"):
        find_folder("/nowhere", runs_dir=tmp_path)
    with pytest.raises(UserError, match="No run is named"):
        find_folder("parent", runs_dir=tmp_path)
    with pytest.raises(UserError, match="There is no run gone here"):
        find_folder("parent", runs_dir=tmp_path, parent="gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="Run empty left no whole model"):
        find_folder("parent", runs_dir=tmp_path, parent="empty")
    with pytest.raises(EnvironmentProblem, match="not on this machine"):
        find_folder("acme/never-fetched", runs_dir=tmp_path, download=False)
    assert find_folder(str(tmp_path), runs_dir=tmp_path) == tmp_path


def test_only_weights_that_are_safe_to_read_are_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="is no JSON object"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = read_config(tmp_path)
    with pytest.raises(UserError, match="has no weights"):
        check_weights(tmp_path, config)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pytorch_model.bin is a pickled file") as refused:
        check_weights(tmp_path, config)
    assert "Convert the weights to safetensors" in refused.value.hint
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    check_weights(tmp_path, config)
    with pytest.raises(UserError, match="model.safetensors is no whole safetensors file"):
        count_parameters(tmp_path)
    with pytest.raises(UserError, match="needs Python code that comes with it"):
        check_weights(tmp_path, {**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})


def test_a_tokenizer_file_tells_its_tokens_or_that_it_is_damaged(tmp_path: Path) -> None:
    assert token_count(tmp_path) == 0
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 7}}, "added_tokens": [{"id": 9, "content": "<s>"}]}))
    assert token_count(tmp_path) == 10
    path.write_text(json.dumps({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}))
    assert token_count(tmp_path) == 2
    path.write_text("{")
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        token_count(tmp_path)


def test_a_model_of_another_task_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a BertForSequenceClassification, which does not continue text"):
        check_generates(tmp_path, {"architectures": ["BertForSequenceClassification"]})
    check_generates(tmp_path, {"architectures": ["GPT2LMHeadModel"]})
    check_generates(tmp_path, {"architectures": None})
