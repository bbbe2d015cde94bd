"""This room certifies what tau does: it turns scored prompts that no head has seen into a map from promises to operating points.

calibrate.py makes the map: observed.py lays its points out on other data, promises.py tests them in order, bounds.py tests one
bounded mean. drift.py says when the map no longer holds, plot.py draws it. Reading a policy off a map needs none of these:
ipr_engine/policy/calibrated.py. The studies of docs/calibration.md stand beside the package: studies/calibration/.
"""
