"""OpenVINO leaves a thread with a signal stack that is gone; ours survives it. In processes of their own: they may die."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import contextlib, faulthandler, os, signal, sys, threading
faulthandler.enable()
import openvino
from core.jobs.signal_stack import own_signal_stack

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
with own_signal_stack() if sys.argv[1] == "guarded" else contextlib.nullcontext():
    cores = [openvino.Core()]
    cores[0].get_property("CPU", "FULL_DEVICE_NAME")
thread = threading.Thread(target=cores.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
print("heard", len(heard))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO changes signal stacks on Linux only")
def test_a_signal_is_heard_after_openvino_was_let_go_of_on_another_thread() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, "guarded"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard 1\n"), done.stderr
