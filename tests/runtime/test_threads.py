"""Threads beside each other: one core each for torch, results in order, errors in their place, nothing left behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from threading import Barrier, Event, active_count, current_thread

import pytest
import torch

from pipeline.runtime import threads
from pipeline.runtime.threads import finish_in_background, in_threads, launch_ahead, make_pool, prefetch

ALONE = "import torch; print(torch.get_num_threads())"
BESIDE_A_POOL = """
import torch
from pipeline.runtime.threads import make_pool
with make_pool(2) as pool:
    assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
print(torch.get_num_threads())
"""


def test_each_thread_has_one_core_for_torch_and_the_main_thread_keeps_its_own() -> None:
    assert printed_by(BESIDE_A_POOL) == printed_by(ALONE)


def printed_by(program: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


# --- works in shared threads ------------------------------------------------------------------------------------------


def test_results_stand_in_the_order_of_the_items() -> None:
    assert in_threads(lambda item: item * 10, range(100)) == list(range(0, 1000, 10))
    assert in_threads(str, []) == []


def test_works_are_done_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Barrier(2, timeout=60)
    with make_pool(2) as pool:
        monkeypatch.setattr(threads, "_pool", lambda _process: pool)
        assert sorted(in_threads(lambda _: meeting.wait(), range(2))) == [0, 1]  # alone each would wait for ever


def test_a_work_within_a_work_stays_in_its_thread() -> None:
    def outer(_: int) -> bool:
        return set(in_threads(lambda _: current_thread(), range(3))) == {current_thread()}

    assert in_threads(outer, range(50)) == [True] * 50
    assert in_threads(lambda _: current_thread(), [1]) == [current_thread()]


def test_the_first_error_is_raised() -> None:
    def work(item: int) -> int:
        raise ValueError(str(item))

    with pytest.raises(ValueError, match=r"^0$"):
        in_threads(work, range(5))


# --- launched ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, ["launch 0", "take 0", "launch 1", "take 1", "launch 2", "take 2"]),
        (1, ["launch 0", "launch 1", "take 0", "launch 2", "take 1", "take 2"]),
        (5, ["launch 0", "launch 1", "launch 2", "take 0", "take 1", "take 2"]),
    ],
)
def test_items_are_launched_as_far_ahead_as_asked(depth: int, expected: list[str]) -> None:
    events: list[str] = []

    def launch() -> Iterator[int]:
        for item in range(3):
            events.append(f"launch {item}")
            yield item

    for item in launch_ahead(launch(), depth=depth):
        events.append(f"take {item}")
    assert events == expected


def test_without_a_gpu_nothing_is_launched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    for there_is_one in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=there_is_one: answer)
        items = iter(range(3))
        next(launch_ahead(items))
        assert next(items) == 1 + there_is_one


# --- prefetched -------------------------------------------------------------------------------------------------------

BATCHES = [[3, 1], [2], [], [5, 4, 0]]


@pytest.mark.parametrize("depth", [None, 0, 1, 9])
def test_values_stand_in_the_order_of_their_items(depth: int | None) -> None:
    found = list(prefetch(BATCHES, lambda item: item * 10, depth=depth))
    assert found == [(batch, [item * 10 for item in batch]) for batch in BATCHES]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_more_batches_are_asked_for_than_said(depth: int) -> None:
    asked: list[int] = []

    def batches() -> Iterator[list[int]]:
        for number in range(6):
            asked.append(number)
            yield [number]

    stream = prefetch(batches(), lambda item: item, depth=depth)
    next(stream)
    assert asked == list(range(1 + depth))


def test_the_next_batch_is_under_way_while_one_is_used() -> None:
    begun = Event()

    def prepare(item: int) -> int:
        if item == 1:
            begun.set()
        return item

    stream = prefetch([[0], [1]], prepare, depth=1)
    next(stream)
    assert begun.wait(timeout=60)


def test_an_error_comes_out_with_its_batch() -> None:
    stream = prefetch([[1], [0], [2]], lambda item: 6 // item, depth=1)
    assert next(stream) == ([1], [6])
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_a_stream_can_be_left_early() -> None:
    done: list[int] = []
    stream = prefetch(([item] for item in range(1000)), done.append, depth=1)
    next(stream)
    del stream
    assert len(done) <= 3


# --- finished in the background ---------------------------------------------------------------------------------------

DEPTHS = pytest.mark.parametrize("depth", [0, 1, 3, 99])


@DEPTHS
def test_values_come_in_the_order_of_their_items(depth: int) -> None:
    assert list(finish_in_background(range(7), lambda item: item * 10, depth=depth)) == [0, 10, 20, 30, 40, 50, 60]


def test_an_item_is_finished_while_the_next_is_made() -> None:
    second_is_made = Event()

    def items() -> Iterator[int]:
        yield 1
        second_is_made.set()
        yield 2

    # Without a thread the first would wait for the second for ever.
    assert list(finish_in_background(items(), lambda _: second_is_made.wait(timeout=60), depth=1)) == [True, True]


def test_items_are_made_where_they_are_asked_for_and_finished_in_one_other_thread() -> None:
    made = (current_thread() for _ in range(4))
    pairs = list(finish_in_background(made, lambda maker: (maker, current_thread()), depth=2))
    assert {maker for maker, _ in pairs} == {current_thread()}
    assert len({finisher for _, finisher in pairs} - {current_thread()}) == 1


@DEPTHS
def test_an_error_in_finishing_comes_in_the_place_of_its_item(depth: int) -> None:
    values = finish_in_background([1, 2, 0, 4], lambda item: 6 // item, depth=depth)
    assert [next(values), next(values)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(values)


@DEPTHS
def test_an_error_in_making_comes_in_the_place_of_its_item(depth: int) -> None:
    values = finish_in_background((6 // item for item in [1, 2, 0, 4]), lambda item: item, depth=depth)
    assert [next(values), next(values)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(values)


@DEPTHS
def test_the_first_error_is_the_one_that_comes(depth: int) -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError

    with pytest.raises(ZeroDivisionError):
        list(finish_in_background(items(), lambda item: 6 // item, depth=depth))


def test_leaving_early_leaves_no_thread() -> None:
    before = active_count()
    values = finish_in_background(range(1000), lambda item: item, depth=2)
    assert next(values) == 0
    assert active_count() == before + 1
    values.close()  # type: ignore[attr-defined]
    assert active_count() == before
