"""The default DAG as other processors compute it: `make processors`. Needs Linux on x86-64, gcc and objdump.

Libraries ask the instruction CPUID what they run on. In a copy of the environment it is replaced by one that no
processor knows, and whoever executes it is answered for another maker, other instructions and other caches, at full
speed. Roundings stay the real processor's, and instructions that it lacks cannot be imitated.

qemu-user, tried first, emulates every instruction: too slow for the whole DAG, and it crashes in `evaluate_ood`. A
virtual machine with a processor of choice needs rights that few machines give.
"""
