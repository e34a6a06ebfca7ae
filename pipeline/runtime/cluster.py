"""Independent units of work side by side: in processes of this machine, or on a Dask cluster of many.

Dask's `distributed` gives the unit of a worker that died to another, which a pool of `concurrent.futures` does not do,
and the same call reaches a cluster.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import progress

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Value = TypeVar("Value")

SCHEDULER: Final = "PIXELCAM_SCHEDULER"  # a setting of the machine: the address of a Dask scheduler
SECONDS_TO_CONNECT: Final = 20
NOBODYS: Final = "127.0.0.1:0"  # a free port of this machine alone


def side_by_side(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    label: str,
    scheduler: str | None = None,
    workers: int | None = None,
) -> Iterator[Value]:
    """Yield what `work` makes of each item, in their order.

    Args:
        work: a function of a module, since it is sent to other processes, as are items and values.
        items: a unit of work each.
        label: of the progress bar.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`; None starts processes on this machine.
        workers: how many processes; by default one per core. A single one, or a single item, needs none.

    Raises:
        PixelCAMError: what `work` raised, the first among the items; or there is no such scheduler, or the processes
            died.
    """
    workers = min(len(items), workers or os.cpu_count() or 1)
    if scheduler is None and workers < 2:
        yield from map(work, progress(items, label=label))
        return
    from distributed import KilledWorker  # noqa: PLC0415 - takes a third of a second to load

    with _client(scheduler, workers) as client:
        futures = client.map(_outcome, [work] * len(items), items, pure=False)
        try:
            for future in progress(futures, label=label):
                outcome = future.result()
                if isinstance(outcome, PixelCAMError):
                    raise outcome
                yield outcome
        except KilledWorker as error:
            raise PixelCAMError(
                f"{label}: several worker processes died over the same piece of work; if the system ended them for "
                "want of memory (dmesg says so), start fewer; run the same command again, which goes on there"
            ) from error


def _outcome(work: Callable[[Item], Value], item: Item) -> Value | PixelCAMError:
    """Return an error that a user can mend as a value, so that no worker prints a traceback."""
    try:
        return work(item)
    except PixelCAMError as error:
        return error


@contextmanager
def _client(scheduler: str | None, workers: int) -> "Iterator[Client]":
    from distributed import Client, LocalCluster  # noqa: PLC0415

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise PixelCAMError(
                f"{scheduler}: no Dask scheduler answers there ({error}); start one ('dask scheduler'), mend the "
                "address, or leave it out to use this machine"
            ) from error
        with client:
            yield client
        return
    quiet = logging.CRITICAL  # a worker that dies is told of where its work is asked for
    # What the processes send each other is run by who gets it: with certificates of its own, nobody else can.
    local = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, threads_per_worker=1, security=True, dashboard_address=NOBODYS, silence_logs=quiet
    )
    with local as cluster, Client(cluster, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        yield client
