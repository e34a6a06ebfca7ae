"""A stage as a process among others: it ends with the program that started it."""

import ctypes
import os
import signal
import sys
from typing import Final

SET_PARENT_DEATH_SIGNAL: Final = 1  # of Linux's prctl


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it dies, on Linux; elsewhere do nothing.

    So a `dvc` that is killed leaves no stage behind that still computes, and writes, beside the next run.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it could be watched
        os.kill(os.getpid(), signal.SIGTERM)
