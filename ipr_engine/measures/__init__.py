"""This room holds the measures that choose a fit and judge a router; training and evaluation both stand on them (docs/metrics.md).

prediction    errors, calibration, hits of predicted quality; constant heads
routing       outcomes, curves, areas, savings, published scores
sweeps        predictions to choices, by rule        resampling    intervals, folds, sums that repeat
"""
