"""A stage as one or several processes: how they start, know each other, and end with the program that started them.

Outside of torchrun there is one process, and all of this does nothing. Nothing here loads torch before it is needed.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Final

from pipeline.params.errors import PixelCAMError

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


WANTED: Final = "PIXELCAM_PROCESSES"  # how many processes a stage starts on this machine; a setting of the machine
LAUNCHED: Final = "TORCHELASTIC_RUN_ID"  # torchrun sets it in the processes that it starts
THREADS: Final = "OMP_NUM_THREADS"
PATIENCE: Final = timedelta(days=1)  # processes wait for each other this long; torchrun ends them where one has died
STARTER: Final = "PIXELCAM_STARTER"  # the process that `start_processes` ran in
STORE_PATIENCE: Final = timedelta(seconds=5)


def is_launched() -> bool:
    """Tell whether torchrun started this process."""
    return LAUNCHED in os.environ


def count() -> int:
    """Return how many processes work on this together, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def rank() -> int:
    """Return which of them this one is, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def is_first() -> bool:
    """Tell whether this process is the one that writes files and speaks to people."""
    return rank() == 0


def is_orphan() -> bool:
    """Tell whether the stage that started this process is gone already."""
    return is_launched() and STARTER in os.environ and os.getppid() != int(os.environ[STARTER])


def count_here() -> tuple[int, int]:
    """Return how many of the processes run on this machine, and how many machines there are."""
    return (int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])) if is_launched() else (1, 1)


def wanted_processes() -> int:
    """Return how many processes the person at this machine wants a stage to start.

    Raises:
        PixelCAMError: the variable PIXELCAM_PROCESSES is no whole number from 1 on.
    """
    value = os.environ.get(WANTED, "1")
    if not (value.isascii() and value.isdigit() and int(value) >= 1):
        raise PixelCAMError(f"{WANTED}: must be a whole number from 1 on, got '{value}'; set it to the number of GPUs")
    return int(value)


def start_processes(number: int, command: Sequence[str]) -> int:
    """Run a Python program in several processes of this machine, as torchrun does; return their exit status.

    What the program says of a fault is all that is said: torchrun's own report would bury it.

    Args:
        number: how many.
        command: what follows `python`.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    os.environ[STARTER] = str(os.getpid())
    os.environ.setdefault(THREADS, str(max(1, (os.cpu_count() or 1) // number)))
    try:
        with TemporaryDirectory(prefix="pixelcam-") as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=number,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
                run_id=f"pixelcam-{os.getpid()}",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                max_restarts=0,
            )
            elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode  # it has said why
        raise PixelCAMError(
            f"process {first + 1} of {number} was ended by {signal.Signals(-failure.exitcode).name}; if the system did "
            "so for want of memory (dmesg says so), start fewer or lower the batch size; run the same command again"
        ) from None
    except SignalException as error:
        return 128 + signal.Signals(error.sigval).value
    return 0


def leave() -> None:
    """Part from the other processes when all are done, so that none leaves while another still needs it."""
    if count() == 1:
        return
    from torch import distributed  # noqa: PLC0415

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def first_to_fail() -> bool:
    """Tell whether no other process has failed before this one, so that a fault is told once.

    Where one process fails, the others fail in waiting for it, or all of them find the same fault. They ask the store
    through which torchrun brought them together.
    """
    if count() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=STORE_PATIENCE,
        )
        return bool(store.add(f"pixelcam/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1)
    except RuntimeError:  # torchrun is gone, and its store with it
        return is_first()
