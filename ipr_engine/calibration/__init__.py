"""Certify what tau does: from scored prompts that no head has seen to a map from promises to operating points.

bounds.py tests a bounded mean, observed.py lays the points out on other data, promises.py tests them in order, calibrate.py makes
the map, drift.py says when it no longer holds. The studies of docs/calibration.md stand beside the package: studies/calibration/.
Reading a policy off a map needs none of these: ipr_engine/policy/calibrated.py.
"""
