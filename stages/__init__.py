"""The stages of the DAG in dvc.yaml: each reads its params, calls one library function and writes its outputs."""

import os

# Threads that wait for each other yield the core instead of spinning: measured, a training step beside one other busy
# process takes 2.5 s instead of 10 s, and alone as long as before. Must be set before torch loads its thread library.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
