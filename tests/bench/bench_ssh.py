"""What a connection costs: connect and run ``true`` against the bare ``ssh``, and many hosts against one.

Prints one JSON line. Hosts are network namespaces with a real sshd (root is needed; without it, or without the
packages, the line says why nothing was measured). Times are medians of several rounds, in seconds.

    python -m tests.bench.bench_ssh [HOSTS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.contracts.hosts import NobodyToAsk
from core.security.secrets import FileSecrets
from core.ssh.connection import SshLink, connect
from tests.helpers.host_lab import HostLab, opened_host_lab, why_not

ROUNDS = 7


def median_s(work: Callable[[], object]) -> float:
    """Return the median time of several rounds; the first, which imports and warms up, is left out."""
    times: list[float] = []
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return statistics.median(times[1:])


def measured(lab: HostLab, folder: Path) -> dict[str, float]:
    """Return the times."""
    secrets = FileSecrets(folder / "secrets.json")

    def opened(host: str) -> SshLink:
        return connect(
            lab.record(host),
            asker=NobodyToAsk(),
            secrets=secrets,
            known_hosts=folder / "known_hosts",
            config_file=lab.ssh_config,
        )

    def visit(host: str) -> None:
        link = opened(host)
        link.run(["true"])
        link.close()

    def visit_all() -> None:
        threads = [threading.Thread(target=visit, args=(host,)) for host in lab.names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ssh_all() -> None:
        started = [subprocess.Popen(["ssh", "-F", str(lab.ssh_config), host, "true"]) for host in lab.names]
        for process in started:
            process.wait()

    bare = ["ssh", "-F", str(lab.ssh_config), "h1", "true"]
    bare_s = median_s(lambda: subprocess.run(bare, check=True))
    one_s = median_s(lambda: visit("h1"))
    link = opened("h1")
    run_s = median_s(lambda: link.run(["true"]))
    probe_s = median_s(lambda: link.probe(10))
    link.close()
    all_s = median_s(visit_all)
    ssh_all_s = median_s(ssh_all)
    return {
        "ssh_true_s": round(bare_s, 4),
        "connect_and_true_s": round(one_s, 4),
        "ratio_to_ssh": round(one_s / bare_s, 2),
        "true_on_open_link_s": round(run_s, 4),
        "probe_s": round(probe_s, 4),
        "all_hosts_s": round(all_s, 4),
        "all_hosts_by_ssh_s": round(ssh_all_s, 4),
        "ratio_all_to_one": round(all_s / one_s, 2),
    }


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    reason = why_not()
    if reason:
        print(json.dumps({"bench": "ssh", "skipped": reason}))
        return
    with tempfile.TemporaryDirectory() as folder, opened_host_lab(count) as lab:
        print(json.dumps({"bench": "ssh", "hosts": count, **measured(lab, Path(folder))}))


if __name__ == "__main__":
    main()
