"""This room holds the decision rule: contract.py has its types and its compiled form, reference.py the same in numpy float64."""

from ipr_engine.decide.contract import CAUSE, STATUS, DecidePlan, DecidePolicy, DecideResult, Heads, available_isas

__all__ = ["CAUSE", "STATUS", "DecidePlan", "DecidePolicy", "DecideResult", "Heads", "available_isas"]
