"""An LLM's own tokens of a text, estimated from what the text is made of (docs/tokens.md)."""

from ipr_engine._C import TEXT_TERMS as TERMS
from ipr_engine._C import count_texts
from ipr_engine.tokens.profiles import read_profiles, shipped_profile, shipped_profiles
from ipr_engine.tokens.token_profile import TokenProfile

__all__ = ["TERMS", "TokenProfile", "count_texts", "read_profiles", "shipped_profile", "shipped_profiles"]
