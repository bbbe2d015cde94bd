"""Types and contracts of the compiled extension."""

from typing import Any, SupportsFloat, TypeVar, final

import numpy as np
import numpy.typing as npt

from ipr_engine.decide import Heads

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]

def available_isas() -> tuple[str, ...]:
    """Instruction sets that work on this machine, slowest first: "scalar", "avx2", "avx512"."""

def fma_chains(isa: str, steps: int) -> int:
    """Run independent chains of fused multiply-adds and return how many that was: timed, the roof of one thread."""

def check_heads(heads: Heads) -> None:
    """Raise InvalidInputError, naming the array, unless a plan can be made of `heads`."""

@final
class DecidePlan:
    """Heads packed for one instruction set. Immutable; any number of threads may run one plan at once.

    Args:
        heads: copied.
        isa: one of available_isas(), or "auto" for the last of them. Every one gives the same bits.
    Raises:
        InvalidInputError: the heads are malformed.
        BackendUnavailableError: this machine or build lacks `isa`.
    """

    def __init__(self, heads: Heads, isa: str = "auto") -> None: ...
    @property
    def models(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def trees(self) -> int: ...
    @property
    def depth(self) -> int:
        """The depth of the forest's trees; 0, as `trees`, without a forest."""
    @property
    def isa(self) -> str: ...
    @property
    def has_tokens(self) -> bool:
        """Whether the heads predict output tokens; if not, run needs tokens_out."""

    def run(
        self,
        x: _Floats,
        policy: DecidePolicy,
        billed_tokens: SupportsFloat | _Floats,
        tokens_out: _Floats | None = None,
        extra_usd: _Floats | None = None,
        allowed: _Bools | None = None,
    ) -> DecideResult:
        """Pick, for each row of x, the cheapest allowed candidate that is good enough.

        Args:
            x: (dim,) or (batch, dim) float32, C-contiguous; the encoder's output.
            policy: one made for this plan's number of models.
            billed_tokens: a number, (batch,) or (batch, models) float32, >= 0; input tokens of the whole request, the same
                for every candidate or by the count of each.
            tokens_out: (models,) or (batch, models) float32, >= 0; output tokens, instead of the predicted ones.
            extra_usd: (models,) or (batch, models) float32; added to the cost.
            allowed: (models,) or (batch, models) bool; anded with the policy's.
        Returns:
            DecideResult of batch rows, 1 for x (dim,).
        Raises:
            InvalidInputError: a shape, dtype or range differs from the above, or no tokens are given nor predicted.
        Notes:
            Ties: the higher quality, then the lower tie_rank. A row with a non-finite quality or cost, or with nothing
            allowed, gets index -1 and a status; the other rows stand. Large batches release the GIL.
        """

@final
class DecidePolicy:
    """A compiled policy: everything of a decision that is not the prompt. Immutable. It can be pickled.

    threshold = min(alpha_hi * hi + alpha_lo * lo + offset, hi), hi and lo over the allowed qualities of a row
    objective = (fixed_usd + in_rate * billed_tokens + out_rate * tokens + extra_usd) - worth * quality

    Args:
        plan: the plan it is for.
        alpha_hi, alpha_lo, offset: finite.
        worth: USD per unit of quality, >= 0.
        in_rate, out_rate: (models,) float32, USD per token, >= 0; with tier_above (tiers, models).
        fixed_usd: (models,) float32, USD per request.
        allowed: (models,) bool.
        min_support: in [0, 1]. A Router, not the op, gives a row of less support to `unsupported`: a position, or -1 for
            the cheapest, of those in unsupported_allowed (models,) bool; None for allowed.
        tier_above: (tiers - 1, models) float32, >= 0, not falling from tier to tier, or None with one price tier: a request
            of more input tokens than tier_above[t] is charged at the rates of tier t + 1, input and output, all of it.
            Infinity: the candidate has no such tier.
    Raises:
        InvalidInputError: a shape, dtype or range differs from the above.
    """

    def __init__(
        self,
        plan: DecidePlan,
        alpha_hi: float,
        alpha_lo: float,
        offset: float,
        worth: float,
        in_rate: _Floats,
        out_rate: _Floats,
        fixed_usd: _Floats,
        allowed: _Bools,
        min_support: float = 0.0,
        unsupported: int = -1,
        unsupported_allowed: _Bools | None = None,
        tier_above: _Floats | None = None,
    ) -> None: ...
    @property
    def models(self) -> int: ...
    @property
    def tiers(self) -> int: ...

@final
class DecideResult:
    """The answers of one run, in one block of memory. The properties are read-only views of it, made on access.

    Attributes:
        index: (batch,) int32, the chosen candidate, -1 where status is not 0.
        quality: (batch, models) float32 in [0, 1].
        tokens_out: (batch, models) float32, predicted or given.
        cost_usd: (batch, models) float32.
        threshold: (batch,) float32, the least quality accepted; NaN in a failed row.
        gap: (batch,) float32 >= 0, the smallest change of one quality that changes the choice; NaN in a failed row.
        status: (batch,) uint8, a position in ipr_engine.decide.STATUS.
        cause: (batch,) uint8, a position in ipr_engine.decide.CAUSE.

    The *_at methods give one element as a Python number; IndexError when out of range.
    """

    @property
    def all_ok(self) -> bool:
        """Every row has status 0."""

    def __len__(self) -> int: ...
    @property
    def index(self) -> npt.NDArray[np.int32]: ...
    @property
    def quality(self) -> _Floats: ...
    @property
    def tokens_out(self) -> _Floats: ...
    @property
    def cost_usd(self) -> _Floats: ...
    @property
    def threshold(self) -> _Floats: ...
    @property
    def gap(self) -> _Floats: ...
    @property
    def status(self) -> npt.NDArray[np.uint8]: ...
    @property
    def cause(self) -> npt.NDArray[np.uint8]: ...
    def index_at(self, row: int, /) -> int: ...
    def quality_at(self, row: int, model: int, /) -> float: ...
    def tokens_at(self, row: int, model: int, /) -> float: ...
    def cost_at(self, row: int, model: int, /) -> float: ...
    def threshold_at(self, row: int, /) -> float: ...
    def gap_at(self, row: int, /) -> float: ...
    def status_at(self, row: int, /) -> int: ...
    def cause_at(self, row: int, /) -> int: ...
    def ranked(
        self, row: int, policy: DecidePolicy, names: tuple[str, ...], allowed: bytes | None, /
    ) -> tuple[str, ...]:
        """Names in the order in which their candidates would be chosen, each with all before it away; () of a failed row.

        Args:
            policy: the one that the row was decided under, or another for as many models.
            names: (models,). allowed: (models,) bytes, 0 = never; None for the policy's own.
        """

def decide_result(
    quality: _Floats,
    tokens_out: _Floats,
    cost_usd: _Floats,
    threshold: _Floats,
    gap: _Floats,
    index: npt.NDArray[np.int32],
    status: npt.NDArray[np.uint8],
    cause: npt.NDArray[np.uint8],
) -> DecideResult:
    """The answers of a run made elsewhere, copied; quality says batch and models. InvalidInputError: another shape or dtype."""

# ---- bind_counters.cpp

latency_edges_us: tuple[float, ...]
"""Upper edges of LatencyHistogram's buckets but the last, which has none: 1, then four an octave up to 2**26 us."""

def clock_ns() -> int:
    """A clock that only goes forward; its zero means nothing."""

class Tally:
    """`size` counts, all 0. Exact from any number of threads: a call holds the interpreter's lock."""

    def __init__(self, size: int) -> None: ...
    def add(self, position: int, by: int = 1, /) -> None: ...
    def add_decision(self, result: DecideResult, row: int, causes: int, kinds: int, kind: int, /) -> None:
        """One more at ((index + 1) * causes + cause) * kinds + kind, index and cause being the row's."""

    def counts(self) -> list[int]: ...
    def clear(self) -> None: ...

class LatencyHistogram:
    """Latencies in the buckets that latency_edges_us bounds; a bucket holds its lower edge. Exact as Tally is."""

    def __init__(self) -> None: ...
    def add(self, ns: int, by: int = 1, /) -> None: ...
    def since(self, start: int, /) -> None:
        """Add the time from `start`, of clock_ns(), until now."""

    def counts(self) -> list[int]: ...
    def sum_ns(self) -> int: ...
    def clear(self) -> None: ...

# ---- bind_encoder.cpp

class WordPiece:
    def __init__(
        self,
        vocab: dict[str, int],
        *,
        unk_token: str = "[UNK]",
        continuing_prefix: str = "##",
        max_chars_per_word: int = 100,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
        fold_width: bool = False,
    ) -> None: ...
    def encode(self, text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]: ...
    def count(self, text: str) -> int: ...
    def words(self, text: str) -> list[str]: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def max_id(self) -> int: ...

MOST_FADING_TURNS: int

class StaticEncoder:
    def __init__(
        self,
        embeddings: npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.int8],
        *,
        tokenizer: WordPiece | None = None,
        mapping: npt.NDArray[np.integer] | None = None,
        weights: npt.NDArray[np.floating] | None = None,
        unk_id: int = -1,
        max_tokens: int = 512,
        head_tokens: int = 0,
        normalize: bool = True,
        isa: str = "auto",
        task_columns: int = 0,
        surface: SurfaceFeatures | None = None,
    ) -> None: ...
    def encode(
        self, prompts: list[str] | tuple[str, ...]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]: ...
    def encode_turns(
        self, turns: list[tuple[str, ...]], conversation: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The same of each conversation, at least one turn, oldest first. conversation: last or recency."""

    def fade(self, means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (dim,) the weighted mean of (turns, dim) means of turns, newest first, at most MOST_FADING_TURNS; dim: the table's."""

    def encode_ids(
        self, ids: npt.NDArray[np.uint32], starts: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float32], bool]: ...
    @property
    def dim(self) -> int: ...
    @property
    def token_count(self) -> int: ...
    @property
    def isa(self) -> str: ...

# ---- bind_surface_features.cpp

class SurfaceFeatures:
    def __init__(self, categories: list[list[str]], flags: list[int]) -> None: ...
    def write(self, prompts: list[str] | tuple[str, ...]) -> npt.NDArray[np.float32]: ...
    def write_bytes(self, utf8: bytes) -> npt.NDArray[np.float32]: ...
    @property
    def dim(self) -> int: ...

# ---- bind_router.cpp

@final
class Router:
    """Prompts to decisions in one call. Keeps plan and encoder alive; safe to share between threads."""

    def __init__(
        self,
        plan: DecidePlan,
        encoder: StaticEncoder | None,
        context_window: list[float],
        token_ratio: list[float],
        most_output: list[float],
        centroids: npt.NDArray[np.float32] | None = None,
        distances: npt.NDArray[np.float32] | None = None,
        coefficients: _Doubles | None = None,
        per_request: _Doubles | None = None,
        tokenizer_of: list[int] = ...,
        conversation: str = "all",
    ) -> None:
        """Args:
        coefficients: (profiles, terms), and per_request: (profiles,), of the candidates' own tokenizers.
        tokenizer_of: (models,) a profile, -1 for a candidate whose tokens are billed_tokens * token_ratio.
        conversation: all, last or recency: what of several turns is encoded.
        """

    def route_one(
        self, prompt: str, policy: DecidePolicy, task_column: int = -1
    ) -> tuple[DecideResult, int, bool, float | None, bytes | None]:
        """The decision, billed_tokens, truncated, support (None without centroids), own_tokens (models,) float32 as bytes.

        task_column: the column of x that is set to 1, for the prompt's task; -1 for none.
        """

    def route_request(
        self,
        encoded: str,
        billed_only: tuple[str, ...],
        policy: DecidePolicy,
        allowed: bytes | None,
        max_tokens: int,
        answers: int,
        task_column: int = -1,
        turns: tuple[str, ...] = (),
    ) -> tuple[DecideResult, int, bool, float | None, bytes | None]:
        """The same of a whole request, whose billed_only texts are counted and not encoded; turns: what `encoded` joins, if anything.

        allowed: (models,), 0 = may not be chosen; None: everyone may, whom the policy allows. max_tokens: -1 where none is stated.
        max_tokens, answers: as of `decide`.
        """

    def route_many(
        self, prompts: list[str], policy: DecidePolicy
    ) -> tuple[DecideResult, npt.NDArray[np.int64], npt.NDArray[np.bool_], _Floats | None, _Floats | None]:
        """The same for a batch, each (batch,), own_tokens (batch, models)."""

    @property
    def has_tokenizers(self) -> bool:
        """Whether a candidate has a profile of its own tokenizer."""

    def own_tokens(self, terms: _Doubles, billed_tokens: npt.NDArray[np.int64]) -> _Floats | None:
        """(batch, models) input tokens by each candidate's own count; None where none has a profile.

        terms: (batch, terms), the sum of count_texts over a request's texts; NaN where not known: billed_tokens * token_ratio.
        """

    def decide(
        self,
        x: npt.NDArray[np.float32],
        policy: DecidePolicy,
        billed_tokens: npt.NDArray[np.int64],
        tokens_out: npt.NDArray[np.float32] | None = None,
        extra_usd: npt.NDArray[np.float32] | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
        max_tokens: npt.NDArray[np.int64] | None = None,
        answers: npt.NDArray[np.int64] | None = None,
        own_tokens: _Floats | None = None,
        terms: _Doubles | None = None,
    ) -> tuple[DecideResult, npt.NDArray[np.float32] | None, _Floats | None]:
        """The same for embeddings (batch, dim): the decisions, their support, and own_tokens.

        own_tokens: (batch, models) as given; None: as the method of that name makes them of these terms; None there: not known.

        allowed: (batch, models), who may be chosen for a row, beside the policy's own. max_tokens: (batch,), most output tokens
        that a request states, -1 where it states none: predictions are cut there, and the context window holds as many. answers:
        (batch,), how many a request asks for: tokens_out are of one, the result's and the cost are of all.
        """

    def send_unsupported(
        self,
        result: DecideResult,
        policy: DecidePolicy,
        billed_tokens: npt.NDArray[np.int64],
        tokens_given: bool,
        allowed: _Bools | None,
        max_tokens: npt.NDArray[np.int64] | None,
        answers: npt.NDArray[np.int64] | None,
        support: _Floats,
        own_tokens: _Floats | None = None,
    ) -> None:
        """Change `result`, decided elsewhere and given to nobody yet, as `decide` ends: rows whose support is below the policy's
        min_support go to its `unsupported`, if that can serve the request.

        Args:
            tokens_given: whether tokens_out is the caller's. The others are as of `decide`.
        """

    def support(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """(batch,) the support of embeddings (batch, dim); None without centroids."""

# ---- bind_recorded_route.cpp

@final
class RecordedRoute:
    """Prompts -> decisions through work that was recorded for a GPU: tokenise, fill, launch, poll, read. Keeps what it is given alive.

    One call at a time: a call writes into the buffers of `passes`.
    """

    def __init__(
        self,
        router: Router,
        tokenizer: WordPiece,
        *,
        before: list[int],
        after: list[int],
        max_tokens: int,
        pad_id: int,
        passes: list[dict[str, Any]],
        calls: dict[str, int] | None = None,
        context: int = 0,
        stream: int = 0,
    ) -> None:
        """Args:
        before, after: special ids around those of a text. max_tokens: the most ids, these included; a longer text loses its middle.
        passes: of each recorded batch the writable arrays of csrc/include/ipr/recorded_pass.h by name, in memory that host and
            device see (`answers` is a dict of those of a DecideResult), and `replay`: the address of a graph, or, without `calls`,
            a callable that does the work and returns when it is done.
        calls: name of a function of CUDA's driver -> its address (ipr_engine.cuda.driver.GRAPH_CALLS). context, stream: addresses,
            of the replays.
        """

    def replay_each(self) -> None:
        """Replay every pass once, whatever stands in its buffers.

        Raises:
            RuntimeError: one of them fails, or ends without its answers.
        """

    def route_one(
        self, prompt: str, policy: DecidePolicy, policy_row: int
    ) -> tuple[DecideResult, int, bool, float | None, bytes | None]:
        """As `Router.route_one`, under the policy that stands in that row on the device.

        Raises:
            RuntimeError: the device failed; the words are those of `ipr_engine.cuda.lost_device.is_device_error`.
        """

    def route_request(
        self,
        encoded: str,
        billed_only: tuple[str, ...],
        policy: DecidePolicy,
        policy_row: int,
        allowed: bytes | None,
        max_tokens: int,
        answers: int,
    ) -> tuple[DecideResult, int, bool, float | None, bytes | None]:
        """As `Router.route_request`; errors as of `route_one`."""

    def route_many(
        self, prompts: list[str], policy: DecidePolicy, policy_row: int
    ) -> tuple[DecideResult, npt.NDArray[np.int64], npt.NDArray[np.bool_], _Floats | None, _Floats | None]:
        """As `Router.route_many`; errors as of `route_one`."""

# ---- bind_request.cpp

_Made = TypeVar("_Made")

def plain_request(request: object, type: type[_Made], most_tokens: int, /) -> _Made | None:
    """`walk_request(request)` of ipr_engine/prompts/parse.py, as an instance of `type`; None where the request is not plain.

    Plain is a str; a non-empty list of messages; a dict with one of these as "messages", "input" or "prompt". Messages are dicts of a
    role (user, system, developer, assistant) and a text; one of the user's is not empty. A body may have a system prompt or
    instructions, texts, and one limit of output tokens, up to `most_tokens`; tools, formats, numbers of answers and the like are
    not plain, unless None. Every value is of the built-in type itself, and every text has a UTF-8 form. An instance of `type` that
    says no more than that is returned itself. It raises no error of a request.

    Args:
        type: ParsedRequest. Its fields are set as its own __init__ does.
    """

# ---- bind_plain_policy.cpp

@final
class PlainPolicy:
    """One policy, and what is written of it: decides whole requests of text alone, and writes their decisions. Immutable."""

    def __init__(
        self,
        policy: DecidePolicy,
        words: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...], bytes],
        rest: bytes,
        best: int,
        billed: float,
        own: float,
        window: float,
        most_stated: int,
        characters: int,
    ) -> None:
        """A request above one of the bounds is left to others: it may be kept from candidates that the policy allows.

        Args:
            words: as of `decision_json`.
            rest: keys and values from "excluded" on, and the brace behind them.
            best: position of the candidate that savings are counted against; -1 where they are not known.
            billed, own: bounds of its tokens by the bundle's tokenizer, and by each candidate's own.
            window: bound of its tokens and of the answer that it states.
            most_stated: most output tokens that it may state. characters: most of all its texts.
        """

    def route(
        self, router: Router, request: object, prefix: str, number: int
    ) -> tuple[bytes, tuple[DecideResult, int, bool, float | None, bytes | None], int | None] | None:
        """The decision's JSON; what `Router.route_one` returns; the output tokens that the request states.

        None where the request is no dict that `plain_request` reads, where it failed or is unsupported, and above a bound.

        Args:
            router: of the bundle that the policy was compiled for.
            prefix, number: of the decision's id: letters and digits, and at least 8 hexadecimal digits.
        Raises:
            InvalidInputError: no token of the prompt is known, or another argument is not as above.
        """

def has_header(headers: list[tuple[bytes, bytes]], names: tuple[bytes, ...], prefix: bytes | None, /) -> bool:
    """Whether a header is of one of these names, or one that begins so; None: that is not looked at. A pair may be a list."""

# ---- bind_decision_json.cpp

def decision_json(
    result: DecideResult,
    row: int,
    policy: DecidePolicy,
    words: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...], bytes],
    own_tokens: bytes | None,
    billed_tokens: int,
    truncated: bool,
    support: float | None,
    /,
) -> bytes | None:
    """The keys and values of `Decision.to_dict` up to "ranked", as JSON without braces; None where the row failed or is unsupported.

    Costs are in USD, and `policy` is what the row was decided under, with nobody kept out.

    Args:
        words: `RowWords`. own_tokens: (models,) float32 as bytes; None: billed_tokens times the ratio of `words`.
    """

def largest(values: bytes, /) -> float:
    """The largest of at least one float32, as bytes; NaN where one is NaN."""

# ---- bind_text_counts.cpp

TEXT_TERMS: tuple[str, ...]
"""Names of what is counted of a text, in order (csrc/include/ipr/text_terms.h)."""

def count_texts(texts: list[str] | tuple[str, ...], isa: str = "auto") -> _Doubles:
    """(texts, terms) float64, what each text is made of, the same on every instruction set. InvalidInputError: something is no
    str, or no Unicode text.
    """

def estimate_tokens(terms: _Doubles, coefficients: _Doubles, per_request: _Doubles) -> _Doubles:
    """(rows, profiles) tokens, whole numbers: coefficients @ terms + per_request, rounded, at least 1 where there is text."""

# ---- bind_tau_path.cpp

_Ints = npt.NDArray[np.int64]

def break_points(
    quality: _Doubles, cost_usd: _Doubles, by_rank: _Ints
) -> tuple[_Doubles, _Ints, _Ints, _Ints, _Ints, _Ints]:
    """Moves by rising worth (worth, row, before, after), then (rows,) where each prompt starts and ends.

    Args:
        quality, cost_usd: (rows, models), finite, C-contiguous. by_rank: (models,) candidates by rising tie rank.
    """

def two_tier_choices(
    quality: _Doubles,
    cost_usd: _Doubles,
    realised: _Doubles,
    again_quality: _Doubles,
    again_cost_usd: _Doubles,
    again_realised: _Doubles,
    by_rank: _Ints,
    worth: _Doubles,
    below: float,
) -> tuple[_Doubles, _Doubles, _Ints]:
    """Sums over the rows at each worth > 0: realised quality and predicted cost of the choices; how often whom, (worths, models).

    Args:
        quality to again_realised: (rows, models), of the first tier and of the second. below: the gap that asks the second.
    """
