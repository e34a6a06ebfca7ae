"""What is finished behind comes in its order, with its errors, and leaves no thread."""

from collections.abc import Iterator
from threading import Event, active_count, current_thread

import pytest

from pipeline.runtime.threads import finished_behind

DEPTHS = pytest.mark.parametrize("depth", [0, 1, 3, 99])


@DEPTHS
def test_values_come_in_the_order_of_their_items(depth: int) -> None:
    assert list(finished_behind(range(7), lambda item: item * 10, depth=depth)) == [0, 10, 20, 30, 40, 50, 60]


def test_an_item_is_finished_while_the_next_is_made() -> None:
    second_is_made = Event()

    def items() -> Iterator[int]:
        yield 1
        second_is_made.set()
        yield 2

    # Without a thread the first would wait for the second for ever.
    assert list(finished_behind(items(), lambda _: second_is_made.wait(timeout=60), depth=1)) == [True, True]


def test_items_are_made_where_they_are_asked_for_and_finished_in_one_other_thread() -> None:
    made = (current_thread() for _ in range(4))
    pairs = list(finished_behind(made, lambda maker: (maker, current_thread()), depth=2))
    assert {maker for maker, _ in pairs} == {current_thread()}
    assert len({finisher for _, finisher in pairs} - {current_thread()}) == 1


@DEPTHS
def test_an_error_in_finishing_comes_in_the_place_of_its_item(depth: int) -> None:
    values = finished_behind([1, 2, 0, 4], lambda item: 6 // item, depth=depth)
    assert [next(values), next(values)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(values)


@DEPTHS
def test_an_error_in_making_comes_in_the_place_of_its_item(depth: int) -> None:
    values = finished_behind((6 // item for item in [1, 2, 0, 4]), lambda item: item, depth=depth)
    assert [next(values), next(values)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(values)


@DEPTHS
def test_the_first_error_is_the_one_that_comes(depth: int) -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError

    with pytest.raises(ZeroDivisionError):
        list(finished_behind(items(), lambda item: 6 // item, depth=depth))


def test_leaving_early_leaves_no_thread() -> None:
    before = active_count()
    values = finished_behind(range(1000), lambda item: item, depth=2)
    assert next(values) == 0
    assert active_count() == before + 1
    values.close()  # type: ignore[attr-defined]
    assert active_count() == before
