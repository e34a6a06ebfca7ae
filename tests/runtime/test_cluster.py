import os
import signal
from pathlib import Path

import pytest

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.cluster import side_by_side

ITEMS = list(range(5))


def squared(item: int) -> tuple[int, int]:
    return item**2, os.getpid()


def refuse_three(item: int) -> int:
    if item == 3:
        raise PixelCAMError("3: expected another number; give one")
    return item


def die_once(item: tuple[Path, int]) -> int:
    folder, number = item
    mark = folder / f"{number}"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_single_worker_is_this_process() -> None:
    assert list(side_by_side(squared, ITEMS, label="x", workers=1)) == [(i**2, os.getpid()) for i in ITEMS]
    assert list(side_by_side(squared, [7], label="x")) == [(49, os.getpid())]
    assert list(side_by_side(squared, [], label="x")) == []


def test_processes_give_the_same_in_the_same_order() -> None:
    found = list(side_by_side(squared, ITEMS, label="x", workers=2))
    assert [value for value, _ in found] == [i**2 for i in ITEMS]
    assert os.getpid() not in {process for _, process in found}


def test_a_fault_comes_in_its_place_and_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    found = side_by_side(refuse_three, ITEMS, label="x", workers=2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PixelCAMError, match="3: expected another number"):
        next(found)
    assert "Traceback" not in capfd.readouterr().err


def test_the_work_of_a_worker_that_died_is_done_by_another(tmp_path: Path) -> None:
    items = [(tmp_path, number) for number in ITEMS]
    assert list(side_by_side(die_once, items, label="x", workers=2)) == ITEMS
    assert (tmp_path / "1").exists()


def test_work_that_kills_every_worker_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PixelCAMError, match="several worker processes died"):
        list(side_by_side(always_die, [0, 1], label="x", workers=2))
    assert "Traceback" not in capfd.readouterr().err


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.cluster.SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(PixelCAMError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"):
        list(side_by_side(squared, ITEMS, label="x", scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(PixelCAMError, match="no Dask scheduler answers"):
        list(side_by_side(squared, ITEMS, label="x", scheduler="nonsense://x"))


def test_a_cluster_that_runs_is_used() -> None:
    from distributed import LocalCluster  # noqa: PLC0415

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call]
        found = list(side_by_side(squared, ITEMS, label="x", scheduler=cluster.scheduler_address))
    assert [value for value, _ in found] == [i**2 for i in ITEMS]


def test_nobody_else_reaches_the_processes() -> None:
    from distributed import Client  # noqa: PLC0415

    from pipeline.runtime.cluster import _client  # noqa: PLC0415

    with _client(None, 1) as client:
        address = str(client.scheduler_info()["address"])
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises(OSError, match=r"Timed out|closed|reset|connect"):
            Client(address.replace("tls", "tcp"), timeout=1, set_as_default=False)  # type: ignore[no-untyped-call]
