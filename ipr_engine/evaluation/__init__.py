"""What a router is worth on prompts whose outcomes are known. Every figure is defined once, in docs/metrics.md.

prediction   errors, calibration, hits of predicted quality         bootstrap   paired resampling of prompts
routing      outcomes, curves, areas, savings, published scores     baselines   what a router has to beat
summary      all of it for one router as one dictionary             report, plots   Markdown, JSON, PNG
"""
