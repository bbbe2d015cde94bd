"""This folder holds everything that measures: a benchmark checks its answers, times variants in turns, and writes lines.

    python -m benchmarks [NAME ...]     the operations (ops/), with --record into results/NAME.jsonl
    python -m benchmarks verify         the targets of targets.toml: met, missed, or not to be told
    python -m benchmarks.before DIR     this checkout beside another one
    python -m benchmarks.install EXTRA  what an installation holds: packages and megabytes
    python -m benchmarks.gpu PART DIR   on a machine with a GPU (gpu.sh runs all parts)
    ipr bench load|soak|encoder|compare from a clone and from an installed wheel (cli/)

harness    turns, percentiles, the machine's record, the commit, the lines
ops        one file an operation: bench_NAME.py; targets, prompts, and `decide` as one would write it by hand
load       latency under load (docs/load-testing.md)
encoders   every encoder tier beside its peers
gpu        decide and text to decision on a GPU; profile: recipes for nsys and ncu
peers      other routers and embedders that do the same work
cli        the command lines of `ipr bench`
results    recorded lines, one file a benchmark

`ipr bench` needs cli, encoders, harness, load and peers: a wheel holds these as ipr_engine.benchmarks (setup.py). So imports
in this folder are relative.
"""
