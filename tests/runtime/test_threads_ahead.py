"""Items prepared in threads come out in their order, whatever the number of batches ahead."""

from collections.abc import Iterator
from threading import Event

import pytest

from pipeline.runtime.threads import prepared

BATCHES = [[3, 1], [2], [], [5, 4, 0]]


@pytest.mark.parametrize("ahead", [None, 0, 1, 9])
def test_values_stand_in_the_order_of_their_items(ahead: int | None) -> None:
    found = list(prepared(BATCHES, lambda item: item * 10, ahead=ahead))
    assert found == [(batch, [item * 10 for item in batch]) for batch in BATCHES]


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_no_more_batches_are_asked_for_than_said(ahead: int) -> None:
    asked: list[int] = []

    def batches() -> Iterator[list[int]]:
        for number in range(6):
            asked.append(number)
            yield [number]

    stream = prepared(batches(), lambda item: item, ahead=ahead)
    next(stream)
    assert asked == list(range(1 + ahead))


def test_the_next_batch_is_under_way_while_one_is_used() -> None:
    begun = Event()

    def prepare(item: int) -> int:
        if item == 1:
            begun.set()
        return item

    stream = prepared([[0], [1]], prepare, ahead=1)
    next(stream)
    assert begun.wait(timeout=60)


def test_an_error_comes_out_with_its_batch() -> None:
    stream = prepared([[1], [0], [2]], lambda item: 6 // item, ahead=1)
    assert next(stream) == ([1], [6])
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_a_stream_can_be_left_early() -> None:
    done: list[int] = []
    stream = prepared(([item] for item in range(1000)), done.append, ahead=1)
    next(stream)
    del stream
    assert len(done) <= 3
