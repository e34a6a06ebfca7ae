"""Measured figures, each beside what it is compared with: `make bench`, or `python -m benchmarks ROW ...`."""

import os

# As in the stages; libgomp reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
