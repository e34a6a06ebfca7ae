"""Threads in which torch computes with one core each."""

import os
import subprocess
import sys

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
