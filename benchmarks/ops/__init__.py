"""Single operations, one file each: `python -m benchmarks NAME` runs bench_NAME.py."""
