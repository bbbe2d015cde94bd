"""`encode_conversations` embeds what a bundle's heads are given of several turns of a user, where that is not all as one text.

A request of one turn is embedded as its text, whatever the heads are given: the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ipr_engine._C import MOST_FADING_TURNS
from ipr_engine.bundle.conversation import ALL, LAST, RECENCY, Conversation
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.parsed import ParsedRequest

TextOrRequest: TypeAlias = str | ParsedRequest  # a text is a request of one turn


@runtime_checkable
class TurnEncoder(Protocol):
    """A `TurnEncoder` is an encoder that can weigh the turns of a conversation: a table, alone or with others beside it."""

    def encode_turns(self, turns: Sequence[tuple[str, ...]]) -> Encoded:
        """Embed each conversation of at least one turn, oldest first, as `recency` says (csrc/include/ipr/static_encoder.h).

        One turn is encoded as its text. billed_tokens are those of all turns; truncated says that one of those weighed was cut.
        """
        ...


def encode_conversations(encoder: Encoder, requests: Sequence[TextOrRequest], conversation: Conversation) -> Encoded:
    """Embed each request as `last` or `recency` says, with the tokens of all turns of its user.

    Raises:
        InvalidInputError: as `Encoder.encode`; `recency` of an encoder that does not tell turns apart.
    """
    if encoder.native is not None:
        return Encoded(*encoder.native.encode_turns([turns_of(request) for request in requests], conversation))
    if conversation == RECENCY:
        if not isinstance(encoder, TurnEncoder):
            raise InvalidInputError(
                f"conversation: recency is of tables, and {encoder.summary} is none; use last or all"
            )
        made = encoder.encode_turns([turns_of(request) for request in requests])
    else:
        made = encoder.encode(encoded_texts(encoder, requests, conversation))
    return replace(made, billed_tokens=counts_of_all_turns(encoder, requests, made.billed_tokens, conversation))


def turns_of(request: TextOrRequest) -> tuple[str, ...]:
    """Return the turns of the user, at least one."""
    return (request,) if isinstance(request, str) else request.turns or (request.encoded,)


def text_of(request: TextOrRequest) -> str:
    """Return all turns of the user as one text."""
    return request if isinstance(request, str) else request.encoded


def newest_told(encoder: Encoder, turns: Sequence[str]) -> str | None:
    """Return the newest turn that has a token by this encoder's count; None where none has."""
    return next((turn for turn in reversed(turns) if encoder.count_tokens(turn)), None)


def encoded_texts(encoder: Encoder, requests: Sequence[TextOrRequest], conversation: Conversation) -> list[str]:
    """Return the one text of each request that is encoded: under `last` its newest turn with a token, else all turns."""
    texts = []
    for request in requests:
        turns = turns_of(request)
        newest = newest_told(encoder, turns) if conversation == LAST and len(turns) > 1 else None
        texts.append(text_of(request) if newest is None else newest)
    return texts


def counts_of_all_turns(
    encoder: Encoder, requests: Sequence[TextOrRequest], counts: npt.NDArray[np.int64], conversation: Conversation
) -> npt.NDArray[np.int64]:
    """Return (rows,) the tokens of all turns of each request as one text; counts: (rows,) of what was encoded of it.

    Under `all` that was this text, and no text is counted again.
    """
    if conversation == ALL:
        return counts
    several = [row for row, request in enumerate(requests) if len(turns_of(request)) > 1]
    whole = counts.copy() if several else counts
    for row in several:
        whole[row] = encoder.count_tokens(text_of(requests[row]))
    return whole


def shown_text(request: TextOrRequest, conversation: Conversation) -> str:
    """Return the text whose words the figures of a decision may give away: what was encoded.

    No encoder is asked: under `last` it is the newest turn that is not blank.
    """
    visible = [turn for turn in turns_of(request) if turn.strip()]
    if conversation == ALL or not visible:
        return text_of(request)
    return visible[-1] if conversation == LAST else "\n\n".join(visible[-MOST_FADING_TURNS:])
