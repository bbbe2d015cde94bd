"""A policy is everything of a decision that is not the prompt: policy_spec.py has its options, compile.py makes a `Policy` of them.

rules.py turns (rule, tau) into coefficients; tau_path.py and paths.py read tau's path; in_use.py keeps compiled policies.
"""
