"""Promises of decide hold on every implementation: written once, run by tests/decide on instruction sets, by tests/kernels on
Triton.

Where one set of sizes fits all, a promise is a test already, of the fixtures `isa` and `rng`; the rest take their sizes as arguments.
"""
