"""How a stage runs on a machine: console, devices, processes, threads, files, seeds, shortages.

May import `params`.
"""
