"""The harness says how benchmarks measure, and how they write what they found."""
