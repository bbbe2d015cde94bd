"""One forward: a batch of requests to their outcomes, within one loaded bundle. A request's fault is its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipr_engine._C import clock_ns
from ipr_engine.cascade import EmbedRows, Rows
from ipr_engine.decision import OK, Row
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import DeviceLostError, EncoderFailedError, InvalidInputError, IprError, RowError
from ipr_engine.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.request.intake import bill, check_readable, require_token, text_terms
from ipr_engine.serving.batching import padded_tokens
from ipr_engine.serving.counters import CounterBoard
from ipr_engine.serving.forward_cost import ForwardCost
from ipr_engine.serving.request import Outcome, Request
from ipr_engine.serving.request_overrides import NOTHING


def measure(loaded: LoadedBundle, request: Request) -> Exception | None:
    """Count the request's tokens as this loaded bundle's encoder reads them; what is wrong with its prompt, if anything.

    A prompt without one token, or that the tokenizer refuses, is found here, before it shares a forward with others.
    """
    encoder = loaded.encoder
    try:
        counted = encoder.count_tokens(request.text.encoded)
    except IprError as error:
        return error
    except BaseException as error:  # an encoder of anyone's making; a panic of Rust's is no Exception
        return _encoder_failed(error, "count_tokens")
    try:
        require_token(request.text, "prompt", counted)
    except InvalidInputError as error:
        return error
    request.tokens = max(1, min(counted, encoder.max_tokens))
    request.encoder = loaded.encoder_identity
    return None


def run_forward(
    loaded: LoadedBundle, batch: Sequence[Request], cost: ForwardCost, board: CounterBoard
) -> list[tuple[Request, Outcome]]:
    """Encode the batch at once, decide it policy by policy; an outcome for every request.

    InvalidInputError out of the encoder means that it blames a row: each row is then encoded alone, so that only that one
    fails. Any other failure is the encoder's own and fails the whole batch, once, with EncoderFailedError: trying again row
    by row would multiply an outage. DeviceLostError alone is raised, where a cpu_fallback is planned that can fail over.
    """
    outcomes: list[tuple[Request, Outcome]] = []
    ready: list[tuple[Request, Policy]] = []
    for request in batch:
        try:
            policy = loaded.resolve(request.policy, {})
            check_readable(request.text, "prompt", request.billed_tokens, loaded.bundle, policy)
            ready.append((request, policy))
        except IprError as error:
            outcomes.append((request, error))
    if not ready:
        return outcomes
    start = clock_ns()
    try:
        encoded = _encode(loaded, [request for request, _ in ready])
    except InvalidInputError as error:
        if len(ready) == 1:
            return [*outcomes, (ready[0][0], error)]
        return outcomes + [made for request, _ in ready for made in run_forward(loaded, [request], cost, board)]
    except BaseException as error:
        _let_stand_in(loaded, error)
        return outcomes + [(request, _encoder_failed(error, f"a batch of {len(ready)}")) for request, _ in ready]
    encode_ns = clock_ns() - start
    requests = [request for request, _ in ready]
    padded = padded_tokens(requests)
    board.batch(len(ready), sum(request.tokens for request in requests), padded)
    board.stages["encode"].add(encode_ns, len(ready))
    start = clock_ns()
    outcomes += _decide(loaded, encoded, ready)
    decide_ns = clock_ns() - start
    board.stages["decide"].add(decide_ns, len(ready))
    cost.observe(padded, (encode_ns if loaded.second is None else encode_ns + decide_ns) / 1e3)
    return outcomes


def _encode(loaded: LoadedBundle, requests: Sequence[Request]) -> Encoded:
    encoded = loaded.encoder.encode([request.text.encoded for request in requests])
    if encoded.x.shape != (len(requests), loaded.plan.dim):
        raise RuntimeError(
            f"it gave embeddings of shape {encoded.x.shape} for {len(requests)} prompts of {loaded.plan.dim} dimensions"
        )
    needs = tuple(request.text.needs for request in requests)
    terms = text_terms(
        [request.text for request in requests], [request.billed_tokens is not None for request in requests]
    )
    return replace(encoded, encoder=loaded.encoder_identity, needs=needs if any(needs) else None, terms=terms)


def _decide(
    loaded: LoadedBundle, encoded: Encoded, ready: Sequence[tuple[Request, Policy]]
) -> Iterator[tuple[Request, Outcome]]:
    """One call a policy; a request with tokens or costs of its own is decided alone. Of two tiers the second encoder runs in here."""
    billed = encoded.billed_tokens.copy()
    groups: dict[int, list[int]] = {}
    for row, (request, policy) in enumerate(ready):
        try:
            if request.billed_tokens is None:
                billed[row] = bill(loaded.encoder, request.text, int(billed[row]))
            else:
                billed[row] = request.billed_tokens
        except IprError as error:
            yield request, error
            continue
        except BaseException as error:  # of the encoder's count_tokens
            yield request, _encoder_failed(error, "count_tokens")
            continue
        groups.setdefault(id(policy) if request.own is None else -1 - row, []).append(row)
    encoded = replace(encoded, billed_tokens=billed)
    waiting = list(groups.values())
    while waiting:
        rows = waiting.pop(0)
        first, policy = ready[rows[0]]
        again = _again(loaded, [ready[row][0].text.encoded for row in rows])
        try:
            columns = NOTHING if first.own is None else first.own.on(loaded.bundle.names)
            tokens_out, extra_usd, cached, told = columns
            made = loaded.decide(encoded[rows], policy, tokens_out, extra_usd, "status", again, told, cached)
        except DeviceLostError:
            raise
        except IprError as error:
            if isinstance(error, InvalidInputError) and again is not None and len(rows) > 1:
                waiting += [[row] for row in rows]  # the second encoder blames a row
                continue
            yield from ((ready[row][0], error) for row in rows)
            continue
        yield from ((ready[row][0], made[position]) for position, row in enumerate(rows))


def _again(loaded: LoadedBundle, texts: list[str]) -> EmbedRows | None:
    """The second encoder on rows of these texts; what goes wrong there is an encoder's failure."""
    embed = loaded.embed_texts(texts)
    if embed is None:
        return None

    def again(rows: Rows) -> Encoded:
        try:
            return embed(rows)
        except InvalidInputError:
            raise
        except BaseException as error:  # an encoder of anyone's making; a panic of Rust's is no Exception
            _let_stand_in(loaded, error)
            raise _encoder_failed(error, f"a batch of {len(rows)}") from error

    return again


def raised(decision: Row, on_error: str) -> Outcome:
    """The decision, or the RowError that `on_error` asks for in place of one that failed."""
    if decision.degraded is not None or decision._result.status_at(decision._row) == OK or on_error == "status":
        return decision
    return RowError([0], [decision.status])


def _let_stand_in(loaded: LoadedBundle, error: BaseException) -> None:
    if isinstance(error, DeviceLostError) and loaded.cpu_fallback is not None:
        raise error


def _encoder_failed(error: BaseException, what: str) -> EncoderFailedError:
    failed = EncoderFailedError(f"the encoder failed on {what}: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
