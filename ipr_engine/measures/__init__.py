"""The measures that a fit is chosen by and a router is judged by, below both (docs/metrics.md)."""
