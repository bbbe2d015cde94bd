"""A bundle's heads say what of a conversation they are given: `Conversation`, the key `conversation` of their entry in bundle.json."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Conversation: TypeAlias = Literal["all", "last", "recency"]
"""all: the user's turns as one text. last: the last one that has a token. recency: each turn alone, weighing half of the next."""

CONVERSATIONS: tuple[Conversation, ...] = get_args(Conversation)
ALL, LAST, RECENCY = CONVERSATIONS
CONVERSATION_VERSION = 9  # the first schema_version whose heads may say it
WEIGHABLE = ("static", "task", "surface")  # kinds of encoders, or of parts of one, that can stand under `recency`
