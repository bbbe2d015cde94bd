"""Each file here times a single operation: `python -m benchmarks NAME` runs bench_NAME.py."""
