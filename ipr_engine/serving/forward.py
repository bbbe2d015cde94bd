"""The worker runs forwards: this file picks the requests that share the next one, foresees its cost, and returns every answer.

A forward runs within one loaded bundle. A request's fault is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

from ipr_engine._C import clock_ns
from ipr_engine.bundle.conversation import LAST
from ipr_engine.decision.decision import Decision
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.conversations import encoded_texts
from ipr_engine.errors import BackendUnavailableError, DeviceLostError, InvalidInputError, IprError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.request.intake import bill, check_readable, require_token
from ipr_engine.request.overrides import NO_OVERRIDES
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.encoder_faults import encoder_failed, guarded, raise_if_lost
from ipr_engine.serving.queueing import DONE, Limits, Made, QueuedRequest, Recordable

DECAY = 0.95  # a forward counts half after 14 more of them
CLIP = 2.0  # one hiccup moves the estimate little; a lasting slowdown is learnt within some ten forwards
PADDING_SHARE = 0.125  # of a batch's tokens that may be padding whatever a forward costs
# A forward whose fixed part is a 32nd of its time gains nothing by growing: the next one is as good, and sooner.
ENOUGH = 32
FEW = 8  # prompts up to which it grows all the same, since the fixed part is an estimate
WINDOW = 4  # so many times max_batch requests are looked at, from the oldest on
SIZES = ((1, 16), (1, 128), (8, 16))  # prompts and words of each; a word is a token or more
ROUNDS = 3  # the first one is not counted: it allocates, compiles, captures
FRESH = 0.2  # weight of a forward in the mean length of a prompt
PROBE = 16  # every 16th request that the estimate gives up is tried all the same, so that a wrong estimate is corrected

Answered: TypeAlias = tuple[QueuedRequest, Made]


class ForwardCost:
    """A `ForwardCost` estimates time = fixed_us + token_us * padded tokens, by least squares over the forwards so far.

    Older forwards count less. It is of one encoder, written by the worker alone, read by any thread.

    Attributes:
        fixed_us: what a forward costs whatever is in it. token_us: what a token more costs, padding included.
    """

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder
        self.fixed_us = 0.0
        self.token_us = 0.0
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, padded_tokens: int, us: float) -> None:
        expected = self.predict(padded_tokens)
        if self._weight > 2.5:  # some three forwards seen: the first ones are taken as they come
            us = min(us, CLIP * expected)
        x = float(padded_tokens)
        self._weight = DECAY * self._weight + 1
        self._x = DECAY * self._x + x
        self._y = DECAY * self._y + us
        self._xx = DECAY * self._xx + x * x
        self._xy = DECAY * self._xy + x * us
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x * mean_x
        slope = self.token_us
        if spread > 0.01 * mean_x * mean_x:  # forwards of one size tell nothing of the slope: the last one known stands
            slope = (self._xy / self._weight - mean_x * mean_y) / spread
        self.token_us = min(max(slope, 0.0), mean_y / mean_x) if mean_x else 0.0  # neither part is negative
        self.fixed_us = mean_y - self.token_us * mean_x

    def predict(self, padded_tokens: int) -> float:
        """Return the microseconds of a forward; 0 as long as nothing is known."""
        return self.fixed_us + self.token_us * padded_tokens

    @property
    def fixed_tokens(self) -> float:
        """Return how many tokens take as long as the fixed part of a forward: padding up to so many costs less than a second forward."""
        return self.fixed_us / self.token_us if self.token_us > 0 else float("inf")


def compose(window: Sequence[QueuedRequest], limits: Limits, cost: ForwardCost, now_ns: int) -> list[QueuedRequest]:
    """Return the next batch: the oldest request, and those nearest to it in length as long as the batch stays within bounds.

    Bounds: max_batch rows; max_batch_tokens, padding included; padding of at most PADDING_SHARE, or of what another forward's
    fixed cost is worth; nobody's deadline passes for being in a larger batch. Beyond FEW rows it ends where growing gains
    nothing (ENOUGH): on a CPU after some hundred tokens, on a GPU hardly ever. The oldest is always in, so that nobody starves.

    Args:
        window: the waiting requests, oldest first, at least one, their tokens counted.
        now_ns: of clock_ns.
    """
    oldest = window[0]
    batch, longest, total, slack = [oldest], oldest.tokens, oldest.tokens, slack_us(oldest, now_ns)
    padding_worth = cost.fixed_tokens
    # nearest in length first: what comes later pads more
    for request in sorted(window[1:], key=lambda other: abs(other.tokens - oldest.tokens)):
        if len(batch) >= limits.max_batch or (len(batch) >= FEW and total >= ENOUGH * padding_worth):
            break
        top = max(longest, request.tokens)
        padded = top * (len(batch) + 1)
        padding = padded - total - request.tokens
        patience = min(slack, slack_us(request, now_ns))
        if (
            padded <= limits.max_batch_tokens
            and padding <= max(padding_worth, PADDING_SHARE * padded)
            and (patience == float("inf") or cost.predict(padded) <= patience)
        ):
            batch.append(request)
            longest, total, slack = top, total + request.tokens, patience
    return batch


def padded_tokens(batch: Sequence[QueuedRequest]) -> int:
    """Return the tokens of a forward of these requests, each padded to the longest."""
    return len(batch) * max(request.tokens for request in batch)


def slack_us(request: QueuedRequest, now_ns: int) -> float:
    """Return the microseconds until the request's deadline: negative after it, infinite without one."""
    return float("inf") if request.deadline_ns is None else (request.deadline_ns - now_ns) / 1e3


class ServedEngine(Protocol):
    """A `ServedEngine` has what a service needs of an engine: the bundle that serves now, and the CPU in place of a device that failed."""

    @property
    def loaded(self) -> LoadedBundle: ...

    @property
    def swaps(self) -> int: ...

    def fail_over(self, loaded: LoadedBundle, error: DeviceLostError) -> LoadedBundle: ...


class Forwards:
    """A `Forwards` runs the forwards of one service, in its worker alone.

    Attributes:
        cost: what forwards of the encoder that serves cost, as far as is known.
        window: so many requests are looked at, from the oldest on.
    """

    def __init__(
        self,
        engine: ServedEngine,
        limits: Limits,
        board: CounterBoard,
        answer_late: Callable[[QueuedRequest, LoadedBundle], Decision | Recordable],
    ) -> None:
        """Begin with no cost known.

        answer_late: the decision of a request whose budget is over; it raises what the caller gets where there is none.
        """
        self.cost = ForwardCost("")
        self.window = WINDOW * limits.max_batch
        self._engine = engine
        self._limits = limits
        self._board = board
        self._answer_late = answer_late
        self._given_up = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the forward that ran in the parent process."""
        self._ends_ns = 0  # of the forward that runs, as foreseen
        self._mean_tokens = 0.0  # of a prompt with its padding, as they last came

    @property
    def loaded(self) -> LoadedBundle:
        """Return the bundle that serves now."""
        return self._engine.loaded

    @property
    def compiled(self) -> bool:
        """Return whether no encoder has threads of its own, which would not come along into a forked child."""
        loaded = self._engine.loaded
        return loaded.encoder.native is not None and (loaded.second is None or loaded.second.encoder.native is not None)

    @property
    def single_us(self) -> float:
        """Return the microseconds of a forward of one prompt as they last came; 0 before the first."""
        return self.cost.predict(round(self._mean_tokens)) if self._mean_tokens else 0.0

    def wait_us(self, prompts: int, running: bool) -> float:
        """Return the microseconds until as many prompts, as they last came, are decided.

        They are the rest of the forward that runs, where one does, and the forwards to come.
        """
        cost, forwards = self.cost, -(-prompts // self._limits.max_batch)
        rest = max(0.0, (self._ends_ns - clock_ns()) / 1e3) if running else 0.0
        return rest + forwards * cost.fixed_us + prompts * self._mean_tokens * cost.token_us

    def warm_up(self) -> None:
        """Run the encoder and the heads, to learn what a forward costs.

        Raises:
            Whatever the encoder raises: an engine that cannot encode is not ready.
            BackendUnavailableError: it gives embeddings of the wrong width.
        """
        loaded = self._engine.loaded
        encoder, cost = loaded.encoder, ForwardCost(loaded.encoder_identity)
        for turn in range(ROUNDS):
            for prompts, words in SIZES:
                texts = [" ".join(["what"] * min(words, encoder.max_tokens))] * prompts
                tokens = min(encoder.count_tokens(texts[0]), encoder.max_tokens)
                start = clock_ns()
                encoded = encoder.encode(texts)
                if loaded.second is not None:  # who comes to the worker mostly needs both
                    loaded.second.encode(texts)
                if turn:
                    cost.observe(prompts * tokens, (clock_ns() - start) / 1e3)
        if encoded.x.shape[1] != loaded.plan.dim:
            raise BackendUnavailableError(
                f"encoder: its embeddings have {encoded.x.shape[1]} dimensions, the heads read {loaded.plan.dim}"
            )
        self.cost = cost

    def sort(
        self, loaded: LoadedBundle, window: Sequence[QueuedRequest], now_ns: int
    ) -> tuple[list[Answered], list[QueuedRequest]]:
        """Return the requests that can be answered without a forward (bad prompts, passed deadlines), and those that wait for one."""
        if self.cost.encoder != loaded.encoder_identity:
            self.cost = ForwardCost(loaded.encoder_identity)
        answered: list[Answered] = []
        waiting = []
        for request in window:
            if request.state == DONE:
                continue
            problem = None if request.encoder == loaded.encoder_identity else measure(loaded, request)
            if problem is not None:
                answered.append((request, problem))
            elif request.deadline_ns is not None and self._hopeless(request, now_ns):
                answered.append((request, self._late(request, loaded)))
            else:
                waiting.append(request)
        return answered, waiting

    def _hopeless(self, request: QueuedRequest, now_ns: int) -> bool:
        """Return whether a deadline is past, or would be before a forward of its request alone ends."""
        slack = slack_us(request, now_ns)
        if slack <= 0:
            return True
        if self.cost.predict(request.tokens) <= slack:
            return False
        self._given_up += 1
        return self._given_up % PROBE != 0  # the estimate learns from those that are tried

    def _late(self, request: QueuedRequest, loaded: LoadedBundle) -> Made:
        try:
            return self._answer_late(request, loaded)
        except Exception as error:
            return error

    def compose(self, waiting: Sequence[QueuedRequest], now_ns: int) -> list[QueuedRequest]:
        """Return the next batch of those that wait."""
        return compose(waiting, self._limits, self.cost, now_ns) if waiting else []

    def foresee(self, batch: Sequence[QueuedRequest], now_ns: int) -> None:
        """Note when the forward of this batch, which begins now, will end, and how long prompts are."""
        padded = padded_tokens(batch)
        self._ends_ns = now_ns + int(1e3 * self.cost.predict(padded))
        # an exponential mean, begun with the first forward
        self._mean_tokens += (padded / len(batch) - self._mean_tokens) * (FRESH if self._mean_tokens else 1.0)

    def run(self, loaded: LoadedBundle, batch: Sequence[QueuedRequest]) -> list[Answered]:
        """Encode and decide a batch, on the CPU where the device is lost."""

        def forward(serving: LoadedBundle) -> list[Answered]:
            if serving is not loaded:  # the same model, not the same speed
                self.cost = ForwardCost(serving.encoder_identity)
            return run_forward(serving, batch, self.cost, self._board)

        return loaded.run(forward, self._engine.fail_over)


def measure(loaded: LoadedBundle, request: QueuedRequest) -> Exception | None:
    """Count the request's tokens as this loaded bundle's encoder reads them; return what is wrong with its prompt, if anything.

    A prompt without one token, or that the tokenizer refuses, is found here, before it shares a forward with others.
    """
    encoder = loaded.encoder
    try:
        counted = read = encoder.count_tokens(request.text.encoded)
        if request.text.turns and loaded.conversation == LAST:
            read = encoder.count_tokens(encoded_texts(encoder, [request.text], LAST)[0])
    except IprError as error:
        return error
    except BaseException as error:  # an encoder of anyone's making; a panic of Rust's is no Exception
        return encoder_failed(error, "count_tokens")
    try:
        require_token(request.text, "prompt", counted)
    except InvalidInputError as error:
        return error
    request.tokens = max(1, min(read, encoder.max_tokens))
    request.encoder = loaded.encoder_identity
    return None


def run_forward(
    loaded: LoadedBundle, batch: Sequence[QueuedRequest], cost: ForwardCost, board: CounterBoard
) -> list[Answered]:
    """Encode the batch at once, decide it policy by policy; return every request's answer.

    InvalidInputError out of the encoder means that it finds a row at fault: each row is then encoded alone, so that only that one
    fails. Any other failure is the encoder's own and fails the whole batch, once, with EncoderFailedError: trying again row
    by row would multiply an outage. DeviceLostError alone is raised, where a cpu_fallback is planned that can fail over.
    """
    answers: list[Answered] = []
    ready: list[tuple[QueuedRequest, Policy]] = []
    for request in batch:
        try:
            policy = loaded.resolve(request.policy)
            check_readable(request.text, "prompt", request.billed_tokens, loaded.bundle, policy)
            ready.append((request, policy))
        except IprError as error:
            answers.append((request, error))
    if not ready:
        return answers
    start = clock_ns()
    try:
        encoded = loaded.encode_each(
            [request.text for request, _ in ready],
            [request.billed_tokens is not None for request, _ in ready],
            [request.task for request, _ in ready],
        )
    except InvalidInputError as error:
        if len(ready) == 1:
            return [*answers, (ready[0][0], error)]
        return answers + [made for request, _ in ready for made in run_forward(loaded, [request], cost, board)]
    except BaseException as error:
        raise_if_lost(error, loaded.cpu_fallback is not None)
        return answers + [(request, encoder_failed(error, f"a batch of {len(ready)}")) for request, _ in ready]
    encode_ns = clock_ns() - start
    requests = [request for request, _ in ready]
    padded = padded_tokens(requests)
    board.batch(len(ready), sum(request.tokens for request in requests), padded)
    board.stages["encode"].add(encode_ns, len(ready))
    start = clock_ns()
    answers += _decide(loaded, encoded, ready)
    decide_ns = clock_ns() - start
    board.stages["decide"].add(decide_ns, len(ready))
    cost.observe(padded, (encode_ns if loaded.second is None else encode_ns + decide_ns) / 1e3)
    return answers


def _decide(
    loaded: LoadedBundle, encoded: Encoded, ready: Sequence[tuple[QueuedRequest, Policy]]
) -> Iterator[Answered]:
    """Decide in one call a policy; a request with tokens or costs of its own is decided alone. The second encoder runs in here."""
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
            yield request, encoder_failed(error, "count_tokens")
            continue
        groups.setdefault(id(policy) if request.overrides is NO_OVERRIDES else -1 - row, []).append(row)
    encoded = replace(encoded, billed_tokens=billed)
    waiting = list(groups.values())
    while waiting:
        rows = waiting.pop(0)
        first, policy = ready[rows[0]]
        texts = [ready[row][0].text for row in rows]
        tasks = None if encoded.tasks is None else [encoded.tasks[row] for row in rows]
        embed = None if loaded.second is None else loaded.embed_again(texts, tasks)
        again = None if embed is None else guarded(embed, loaded.cpu_fallback is not None)
        try:
            chosen = encoded if len(rows) == len(ready) else encoded[rows]  # a group keeps the order of its rows
            overrides = first.overrides
            if overrides is not NO_OVERRIDES:
                overrides = overrides.on(loaded.bundle.names)
            if any(ready[row][0].record is not None for row in rows):
                made = loaded.decide_keeping(chosen, policy, overrides, again, texts)
            else:
                made = loaded.decide(chosen, policy, overrides, again)
        except DeviceLostError:
            raise
        except IprError as error:
            if isinstance(error, InvalidInputError) and again is not None and len(rows) > 1:
                waiting += [[row] for row in rows]  # the second encoder finds a row at fault
                continue
            yield from ((ready[row][0], error) for row in rows)
            continue
        for position, row in enumerate(rows):
            request, decision = ready[row][0], made[position]
            recorded = request.record is not None
            yield request, Recordable(decision, loaded, made, position) if recorded else decision
