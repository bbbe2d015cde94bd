"""What a router is worth on prompts whose outcomes are known. Every figure is defined once, in docs/metrics.md.

prediction   errors, calibration, hits of predicted quality         bootstrap   paired resampling of prompts
routing      outcomes, curves, areas, savings, published scores     sweeps      predictions to choices, by rule
support      error against support                                  baselines   what a router has to beat
summary      all of it for one router as one dictionary             evaluate    the same for an engine and a source
report, plots   Markdown, JSON, PNG
"""
