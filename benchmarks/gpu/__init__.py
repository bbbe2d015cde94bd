"""`python -m benchmarks.gpu` measures on a GPU, part by part; `pack` makes the tree that is carried there."""
