"""A prompt is a string, chat messages or a whole LLM request; this room tells what of it is encoded, billed and needed."""

from ipr_engine.prompts.objects import as_fields, as_json, kind_of
from ipr_engine.prompts.parse import BODY, TURNS, Prompt, is_one_prompt, parse_request
from ipr_engine.prompts.parsed import Needs, ParsedRequest

__all__ = [
    "BODY",
    "TURNS",
    "Needs",
    "ParsedRequest",
    "Prompt",
    "as_fields",
    "as_json",
    "is_one_prompt",
    "kind_of",
    "parse_request",
]
