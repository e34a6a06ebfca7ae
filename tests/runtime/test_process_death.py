"""A stage ends when what started it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from imports import ROOT

STARTER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), flush=True)
time.sleep(120)
"""
CHILD = """
import os, time
from pipeline.runtime.processes import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(120)
"""


def _has_ended(process: int) -> bool:
    """Tell whether a process is gone, or a zombie that nobody has asked after yet."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells of a parent's death on Linux alone")
def test_a_killed_parent_takes_its_stage_along() -> None:
    command = [sys.executable, "-c", STARTER, CHILD]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        os.kill(child, 0)  # lives
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    for _ in range(600):
        if _has_ended(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the stage outlived its parent by 30 s")
