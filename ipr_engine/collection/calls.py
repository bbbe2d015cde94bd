"""A `Call` is one request of a collection, named by its content; these functions note in a ledger what became of it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipr_engine.bundle.price import price_json
from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.bill import call_usd, most_call_usd, most_input_tokens, nanousd
from ipr_engine.collection.ledger import add_spent
from ipr_engine.collection.provider import Provider
from ipr_engine.collection.reply import Answered, Failed
from ipr_engine.prompts.parsed import ParsedRequest

MOST_MARKS = 1000  # variables of one statement; some builds of SQLite take no more
FOR_GOOD = ("http_400", "http_413", "http_422")
"""Reasons that begin so are of the request itself: it is not sent again unless asked for."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A `Call` is one request.

    Attributes:
        key: the SHA-256 of who is asked, what, and which sample it is. candidate: whose budget it is of.
        body: what is sent. most: the most that it can cost, in nano-USD; most_tokens: the most tokens it can take, for a rate.
        images: how many it holds.
    """

    key: bytes
    candidate: str
    body: Mapping[str, Any]
    most: int
    most_tokens: int
    images: int = 0

    def __repr__(self) -> str:
        """Show the key alone: what is printed into a log shall hold no prompt."""
        return f"Call({self.key.hex()[:16]})"


def make_call(
    asked: AskedCandidate,
    provider: Provider,
    body: Mapping[str, Any],
    sample: int,
    part_tokens: int = 0,
    parsed: ParsedRequest | None = None,
) -> Call:
    """Return the call that asks a candidate for one sample.

    Args:
        body: the part of the request that is the same for every candidate. part_tokens: of each part without text, at most.
        parsed: the body taken apart, whose parts without text are billed so, and whose images are; None: it has neither.
    """
    parts, images = (0, 0) if parsed is None else (len(parsed.uncountable), parsed.images)
    sent = {**body, **asked.parameters, "model": asked.model, asked.limit: asked.most_tokens}
    given = most_input_tokens(sent, part_tokens, parts)
    named = json.dumps([provider.place, sample, sent], ensure_ascii=False, sort_keys=True, allow_nan=False)
    return Call(
        key=hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest(),
        candidate=asked.name,
        body=sent,
        most=nanousd(most_call_usd(asked.price, given, asked.most_tokens, images)),
        most_tokens=given + asked.most_tokens,
        images=images,
    )


def note_price(connection: sqlite3.Connection, asked: AskedCandidate, date: str) -> int:
    """Return the number of a candidate's price in the ledger."""
    row = (asked.name, date, json.dumps(price_json(asked.price), sort_keys=True))
    connection.execute("INSERT OR IGNORE INTO price (candidate, date, price) VALUES (?, ?, ?)", row)
    found = connection.execute("SELECT id FROM price WHERE candidate = ? AND date = ? AND price = ?", row).fetchone()
    return int(found[0])


def note_sent(connection: sqlite3.Connection, call: Call, run: int) -> int | None:
    """Note a call that is about to be sent; return the attempt's number, None where it has an answer or is in flight already."""
    known = "SELECT 1 FROM answer WHERE key = ? UNION ALL SELECT 1 FROM attempt WHERE key = ? AND state = 'sent'"
    if connection.execute(known, (call.key, call.key)).fetchone():
        return None
    made = connection.execute(
        "INSERT INTO attempt (run, key, candidate, sent, state, most_nanousd) VALUES (?, ?, ?, ?, 'sent', ?)",
        (run, call.key, call.candidate, time.time(), call.most),
    )
    assert made.lastrowid is not None
    return made.lastrowid


def note_failed(connection: sqlite3.Connection, call: Call, attempt: int, failed: Failed, seconds: float) -> None:
    """Note why an attempt got no answer; what may be billed all the same is charged at its most."""
    charged = call.most if failed.billed else 0
    connection.execute(
        "UPDATE attempt SET state = 'failed', seconds = ?, charged_nanousd = ?, status = ?, reason = ? WHERE id = ?",
        (seconds, charged, failed.status, failed.reason, attempt),
    )
    add_spent(connection, call.candidate, charged)


def note_answer(
    connection: sqlite3.Connection,
    call: Call,
    attempt: int,
    answered: Answered,
    bill: tuple[float | None, int],
    *,
    price: int,
    seconds: float,
) -> None:
    """Note an answer. bill: its cost in USD where that is known, and what is charged in nano-USD. price: as `note_price` numbers it."""
    cost, charged = bill
    connection.execute(
        "UPDATE attempt SET state = 'answered', seconds = ?, charged_nanousd = ?, status = 200 WHERE id = ?",
        (seconds, charged, attempt),
    )
    add_spent(connection, call.candidate, charged)
    usage = answered.usage
    tokens = (
        (None,) * 4
        if usage is None
        else (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    )
    connection.execute(
        "INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.candidate, answered.text, answered.finish_reason, *tokens),
            *(cost, price, seconds, answered.model, attempt),
        ),
    )


def bill_of(asked: AskedCandidate, call: Call, answered: Answered) -> tuple[float | None, int]:
    """Return what an answer cost in USD, None where its provider reports no usage, and what is charged in nano-USD."""
    if answered.usage is None:
        return (None, call.most) if answered.billed else (0.0, 0)
    cost = call_usd(asked.price, answered.usage, call.images)
    return cost, nanousd(cost)


def settled_keys(connection: sqlite3.Connection, keys: Iterable[bytes], *, again: bool) -> set[bytes]:
    """Return those of the keys that need no call: answered, or failed for good. again: send the latter again."""
    listed, found = list(keys), set[bytes]()
    for start in range(0, len(listed), MOST_MARKS):
        some = listed[start : start + MOST_MARKS]
        marks = ",".join("?" * len(some))
        found |= {key for (key,) in connection.execute(f"SELECT key FROM answer WHERE key IN ({marks})", some)}
        if not again:
            failed = f"SELECT key, reason FROM attempt WHERE key IN ({marks}) AND state = 'failed'"
            found |= {key for key, reason in connection.execute(failed, some) if reason.startswith(FOR_GOOD)}
    return found
