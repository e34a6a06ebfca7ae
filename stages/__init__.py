"""The stages of the DAG in dvc.yaml: each reads its params, calls one library function and writes its outputs."""
