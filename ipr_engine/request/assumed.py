"""`assumed_bill` bills a request with parts that cannot be counted, images say: each by assumption."""

from __future__ import annotations

from ipr_engine.encoders.base import Encoder
from ipr_engine.prompts.parsed import ParsedRequest
from ipr_engine.request.intake import bill


def assumed_bill(encoder: Encoder, request: ParsedRequest, tokens: int) -> tuple[int, int]:
    """Return the tokens of the whole request, and how many of them are assumed. tokens: those of each such part."""
    assumed = tokens * len(request.uncountable)
    counted = bill(encoder, request, encoder.count_tokens(request.encoded) if request.encoded else 0)
    return counted + assumed, assumed
