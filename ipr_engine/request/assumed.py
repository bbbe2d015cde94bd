"""`assumed_bill` bills a request with parts that cannot be counted, images say: each by assumption."""

from __future__ import annotations

import asyncio

from ipr_engine.encoders.base import Encoder
from ipr_engine.prompts.parsed import ParsedRequest
from ipr_engine.request.intake import bill

LONG = 65_536
"""Characters of all texts from which on they are counted in a thread: less takes no longer than the way there and back."""


def assumed_bill(encoder: Encoder, request: ParsedRequest, tokens: int) -> tuple[int, int]:
    """Return the tokens of the whole request, and how many of them are assumed. tokens: those of each such part."""
    assumed = tokens * len(request.uncountable)
    counted = bill(encoder, request, encoder.count_tokens(request.encoded) if request.encoded else 0)
    return counted + assumed, assumed


async def assumed_bill_beside(encoder: Encoder, request: ParsedRequest, tokens: int) -> tuple[int, int]:
    """Return what `assumed_bill` does; where the texts are long, the event loop goes on meanwhile."""
    if len(request.encoded) + sum(map(len, request.billed_only)) < LONG:
        return assumed_bill(encoder, request, tokens)
    return await asyncio.to_thread(assumed_bill, encoder, request, tokens)
