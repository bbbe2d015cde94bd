"""On a GPU: what `python -m benchmarks.gpu` measures, part by part, and the tree that is carried there."""
