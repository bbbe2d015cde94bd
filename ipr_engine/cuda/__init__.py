"""This room holds the parts that every tier on a GPU shares.

graphs.py    recordings: CUDA graphs, or the same work run eagerly
buckets.py   fixed shapes, the rows that go through them, and what an encoder offers for it
driver.py    CUDA's driver by ctypes, without torch
"""

EMULATED = "emulated"  # a device's name: the steps of the CUDA path, taken on the CPU
