"""Threads that share a processor's cores without a fight: in each of them torch computes with one core."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

from pipeline.processes import count_here

WORKERS: Final = min(16, max(1, (os.cpu_count() or 1) // count_here()[0]))  # of every process on this machine


def make_pool(workers: int = WORKERS) -> ThreadPoolExecutor:
    """Make a pool of threads, by default one per core, which the caller shuts down.

    Torch would otherwise start threads of its own in each of them. The thread that calls this keeps all its own.
    """
    torch.get_num_threads()  # settled for this thread by asking; else the threads below would settle it
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
