"""An LLM's own tokens of a text are estimated from what the text is made of (docs/tokens.md).

profiles.py reads and ships the profiles of tokenizers, token_profile.py is one; fit_profile.py fits one to counted samples.
"""
