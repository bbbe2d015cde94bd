"""This file takes in the prompts of one call: each is taken apart, checked against the policy, encoded and billed.

A bad prompt raises an error that names its row, or leaves the error beside the other rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS, count_texts
from ipr_engine.bundle import BundleSpec
from ipr_engine.bundle.conversation import ALL, Conversation
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.conversations import TextOrRequest, encode_conversations
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Needs, ParsedRequest, is_one_prompt, kind_of, parse_request
from ipr_engine.prompts.parsed import bill_floor
from ipr_engine.request.arguments import whole_counts
from ipr_engine.request.asked_tasks import asked_tasks
from ipr_engine.request.row_inputs import lacking


class Intake:
    """An `Intake` holds the prompts of one call, each taken apart.

    Attributes:
        names: what errors call each. requests: taken apart; an empty one in place of a bad one.
        given: the bill that the caller gives of each, None where it is to be counted.
        errors: row -> what is wrong with its prompt; empty where the first bad prompt raises.
        tasks: what each is for; None where nothing is said of any.
    """

    __slots__ = ("errors", "given", "keep_errors", "names", "requests", "tasks")

    def __init__(self, names: list[str], given: list[int | None], keep_errors: bool) -> None:
        self.names = names
        self.given = given
        self.requests = [ParsedRequest("")] * len(names)
        self.keep_errors = keep_errors
        self.errors: dict[int, str] = {}
        self.tasks: tuple[AskedTask | None, ...] | None = None

    @property
    def good(self) -> list[int]:
        """Return the rows whose prompts are not bad, as far as is known."""
        return [row for row in range(len(self.requests)) if row not in self.errors]

    def attribute(self, row: int, error: InvalidInputError) -> None:
        """Keep what is wrong with a row, where errors are kept; else raise it."""
        if not self.keep_errors:
            raise error
        self.errors[row] = str(error)


def take_in(prompts: Any, given: Mapping[str, Any], bundle: BundleSpec, policy: Policy | None, on_error: str) -> Intake:
    """Take one prompt or a list of them apart, and hold each against what the policy's candidates can read.

    given: the `RequestOptions` of the call, of which billed_tokens and task are read.

    Raises:
        InvalidInputError: this is no prompt and no list of them; or, unless on_error is "status", one of them is bad.
    """
    single = is_one_prompt(prompts)
    if not single and not isinstance(prompts, (list, tuple)):
        raise InvalidInputError(
            f"prompts: expected a string, chat messages, a whole request or a list of them, got {kind_of(prompts)}"
        )
    rows = [prompts] if single else prompts
    names = ["prompt"] if single else [f"prompts[{row}]" for row in range(len(rows))]
    made = Intake(names, given_bills(given.get("billed_tokens"), len(rows)), on_error == "status")
    task = given.get("task")
    if task is not None:
        made.tasks = asked_tasks(task, len(rows), bundle.tasks)
    for row, (name, prompt) in enumerate(zip(names, rows, strict=True)):
        try:
            parsed = parse_request(prompt, where=name)
            check_readable(parsed, name, made.given[row], bundle, policy)
            made.requests[row] = parsed
        except InvalidInputError as error:
            made.attribute(row, error)
    return made


def check_many(prompts: Any) -> None:
    """Refuse what is no list of prompts: one prompt, or something else.

    Raises:
        InvalidInputError: naming the call that takes it.
    """
    if isinstance(prompts, (list, tuple)) and ((prompts[:1] and type(prompts[0]) is str) or not is_one_prompt(prompts)):
        return
    if is_one_prompt(prompts):
        raise InvalidInputError(
            f"prompts: expected a list of prompts, got one ({kind_of(prompts)}); give it to route, or pass [prompt]"
        )
    raise InvalidInputError(f"prompts: expected a list of prompts, got {kind_of(prompts)}")


def given_bills(billed_tokens: Any, batch: int) -> list[int | None]:
    """Return the bill that the caller gives of each row; None where it is to be counted."""
    if billed_tokens is None:
        return [None] * batch
    counts = billed_tokens
    if isinstance(counts, (list, tuple)):
        counts = [0 if count is None else count for count in counts]  # checked as numbers, then taken out again
    bills: list[int | None] = list(whole_counts(counts, batch).tolist())
    if counts is not billed_tokens:
        bills = [None if given is None else bill for given, bill in zip(billed_tokens, bills, strict=True)]
    return bills


def check_readable(
    request: ParsedRequest, name: str, billed_tokens: object, bundle: BundleSpec, policy: Policy | None
) -> None:
    """Refuse a request that cannot be billed, or that no allowed candidate can read.

    Raises:
        InvalidInputError: a part cannot be counted and no bill is given, or every allowed candidate lacks a feature.
    """
    for kind in request.uncountable:
        if billed_tokens is None:
            raise InvalidInputError(
                f"{name}: has a part of type {kind!r}, whose tokens cannot be counted here; "
                "pass billed_tokens=... with the whole request's count by the bundle's tokenizer"
            )
    if policy is not None and request.needs is not None:
        check_features(request.needs, name, bundle, policy)


def check_features(needs: Needs, name: str, bundle: BundleSpec, policy: Policy) -> None:
    """Refuse a request that no allowed candidate can read.

    Raises:
        InvalidInputError: every allowed candidate lacks a feature that it needs.
    """
    if not needs.features:
        return
    missing = {c.name: lacking(c, needs) for c in bundle.candidates if c.name in policy.allowed}
    if all(missing.values()):
        asked = " and ".join(f"{feature!r} for its {needs.features[feature]}" for feature in sorted(needs.features))
        why = "; ".join(f"{model} lacks {', '.join(lacks)}" for model, lacks in missing.items())
        known = sorted({feature for c in bundle.candidates for feature in c.features})
        raise InvalidInputError(
            f"{name}: needs {asked}, and no candidate that the policy allows has all of it ({why}); allow another, or give the "
            f"candidates the feature where they have it (known to this bundle: {', '.join(known) or 'none'})"
        )


def encode_requests(encoder: Encoder, requests: Sequence[TextOrRequest], conversation: Conversation) -> Encoded:
    """Embed what heads are given of each request: of several turns of a user all, the last or each alone; bills are of all.

    Raises:
        InvalidInputError: as `Encoder.encode`; `recency` of an encoder that does not tell turns apart.
    """
    if conversation == ALL or not any(isinstance(request, ParsedRequest) and request.turns for request in requests):
        return encoder.encode([request if isinstance(request, str) else request.encoded for request in requests])
    return encode_conversations(encoder, requests, conversation)


def encode_all(encoder: Encoder, identity: str, intake: Intake, conversation: Conversation = ALL) -> Encoded:
    """Embed the good prompts, and bill them; rows of bad ones have x NaN, and their errors beside.

    identity: the encoder's. conversation: what the heads are given of several turns.
    """
    batch, good = len(intake.requests), intake.good
    try:
        made = encode_requests(encoder, [intake.requests[row] for row in good], conversation)
    except InvalidInputError:  # of one row, not told which: with errors kept, the others must not fail with it
        if not intake.keep_errors:
            raise
        good, made = _one_by_one(encoder, intake, conversation)
    x, counts, truncated = made.x, made.billed_tokens, made.truncated
    if len(good) < batch:  # bad prompts were not encoded: their rows are put in between
        x, truncated = np.full((batch, encoder.dim), np.nan, np.float32), np.zeros(batch, np.bool_)
        x[good], truncated[good] = made.x, made.truncated
        counts = np.zeros(batch, np.int64)
        counts[good] = made.billed_tokens
    bills = bill_all(encoder, intake, counts)
    terms = text_terms(intake.requests, [given is not None for given in intake.given])
    needs = tuple(request.needs for request in intake.requests)
    if intake.errors:  # billing may have found more of them, whose embeddings must not be decided on
        bad = list(intake.errors)
        x, truncated = np.array(x), np.array(truncated)
        x[bad], truncated[bad] = np.nan, False
    return Encoded(x, bills, truncated, identity, needs if any(needs) else None, dict(intake.errors), terms)


def _one_by_one(encoder: Encoder, intake: Intake, conversation: Conversation) -> tuple[list[int], Encoded]:
    """Return the rows that can be encoded: the encoder blames one of them, and says not which in a way that can be relied on."""
    made: dict[int, Encoded] = {}
    for row in intake.good:
        try:
            made[row] = encode_requests(encoder, [intake.requests[row]], conversation)
        except InvalidInputError as error:
            intake.attribute(row, InvalidInputError(str(error).replace("prompts[0]", intake.names[row], 1)))
    none = Encoded(np.empty((0, encoder.dim), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))
    parts = [none, *made.values()]
    return list(made), Encoded(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.billed_tokens for part in parts]),
        np.concatenate([part.truncated for part in parts]),
    )


def bill_all(encoder: Encoder, intake: Intake, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (rows,) what each prompt is billed, from the tokens counted of what is encoded; 0 of a bad one."""
    bills = np.zeros(len(counts), np.int64)
    for row in intake.good:
        try:
            request, count, given = intake.requests[row], int(counts[row]), intake.given[row]
            require_token(request, intake.names[row], count)
            bills[row] = bill(encoder, request, count) if given is None else given
        except InvalidInputError as error:
            intake.attribute(row, error)
    return bills


def require_token(request: ParsedRequest, name: str, count: int) -> None:
    """Refuse a request whose text has no token; one with an image, say, need not have any."""
    if count == 0 and not request.uncountable:
        raise InvalidInputError(f"{name}: expected text, got {len(request.encoded.encode())} bytes without one token")


def text_terms(requests: Sequence[ParsedRequest], given: Sequence[bool]) -> npt.NDArray[np.float64]:
    """Return (rows, terms) what all texts of each request are made of; NaN where its bill is given: its texts are not all of it."""
    terms = np.empty((len(requests), len(TEXT_TERMS)))
    for row, request in enumerate(requests):
        terms[row] = (
            np.nan if given[row] else np.add.reduce(count_texts([request.encoded, *request.billed_only]), axis=0)
        )
    return terms


def all_counted(terms: npt.NDArray[np.float64] | None) -> bool:
    """Return whether the bill of every row was counted and not given, as far as is known; terms: those of `Encoded`."""
    if terms is not None and len(terms) == 1:  # numpy takes 30 times as long to look at one number
        return not math.isnan(terms.item(0))
    return terms is None or not np.isnan(terms[:, 0]).any()


def bill(encoder: Encoder, request: ParsedRequest, counted: int) -> int:
    """Return the tokens of the whole request: what was encoded, of which `counted`, and every text that was not."""
    other = sum(bill_floor(text, encoder.count_tokens(text)) for text in request.billed_only)
    return bill_floor(request.encoded, counted) + other
