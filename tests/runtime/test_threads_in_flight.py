"""Work is launched ahead of what is taken of it, by as much as asked, and comes in its order."""

from collections.abc import Iterator

import pytest
import torch

from pipeline.runtime.threads import Fetched, in_flight, to_device


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

    for item in in_flight(launch(), depth=depth):
        events.append(f"take {item}")
    assert events == expected


def test_without_a_gpu_nothing_is_launched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    for there_is_one in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=there_is_one: answer)
        items = iter(range(3))
        next(in_flight(items))
        assert next(items) == 1 + there_is_one


def test_tensors_come_as_they_went() -> None:
    first, second = torch.rand(2, 3), torch.arange(4)
    fetched = Fetched(to_device(first, torch.device("cpu")), second).wait()
    assert [values.tolist() for values in fetched] == [first.tolist(), second.tolist()]
