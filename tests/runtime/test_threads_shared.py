"""Works in shared threads: in order, with their errors, and one within another."""

from threading import Barrier, current_thread

import pytest

from pipeline.runtime import threads
from pipeline.runtime.threads import in_threads, make_pool


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
