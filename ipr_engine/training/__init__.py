"""Heads from outcomes: train.py is `ipr train`, estimators/ what it may fit, add/ a candidate beside frozen heads (docs/own-bundle.md)."""
