"""How benchmarks measure, and how they write what they found."""
