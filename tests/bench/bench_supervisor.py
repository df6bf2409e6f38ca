"""What guarding a run costs: CPU of a real supervisor with telemetry at 1 Hz, in percent of one core.

Prints one JSON line. A quiet script runs under the real launcher; the supervisor's own CPU time is read from /proc
over the window, its start left out.

    python -m tests.bench.bench_supervisor [SECONDS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from core.jobs.launcher import Launcher
from core.jobs.records import SupervisorRecord, read_record
from core.plugins.decode import decode_spec
from core.runlog.layout import RunLayout
from core.settings.home import Home


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.prepare()
        script = home.path / "quiet.py"
        script.write_text("import time\ntime.sleep(3600)\n")
        launcher = Launcher(home)
        run_id = launcher.launch(decode_spec({"kind": "train.script", "script": str(script)}))
        layout = RunLayout(home.run_dir(run_id))
        while (record := read_record(layout.supervisor(), SupervisorRecord)) is None or record.worker is None:
            time.sleep(0.1)
        time.sleep(3)
        process = psutil.Process(record.identity.pid)
        before, start = process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, window = process.cpu_times(), time.monotonic() - start
        rss = process.memory_info().rss
        launcher.stop(run_id)
        while (standing := launcher.standing(run_id)).state is None or not standing.state.is_terminal:
            time.sleep(0.1)
        samples = len(layout.telemetry().read_text().splitlines())
    cpu_s = after.user + after.system - before.user - before.system
    print(
        json.dumps(
            {
                "bench": "supervisor",
                "window_s": round(window, 1),
                "percent_of_one_core": round(100 * cpu_s / window, 3),
                "telemetry_samples": samples,
                "rss_bytes": rss,
            }
        )
    )


if __name__ == "__main__":
    main()
