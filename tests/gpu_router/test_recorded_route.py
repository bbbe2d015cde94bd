"""Texts through recordings in one C++ call: what is written, when it is read, and what passes a second time.

The driver is a stand-in (tests/support/stand_in_graphs.c); the answers are those that a test put into the buffers. The same call on
real work, emulated, is in test_router.py.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from ipr_engine._C import RecordedRoute, Router, WordPiece
from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads
from ipr_engine.encoders.tokenizer import WordPieceTokenizer
from ipr_engine.encoders.transformer import cut_between_words
from ipr_engine.errors import BackendUnavailableError, DeviceLostError, InvalidInputError, OutOfDeviceMemoryError
from tests.support import skips
from tests.support.graph_stand_in import CONTEXT, GraphDriver, address_of

MODELS, DIM, TOKENS = 3, 8, 16
WORDS = ["why", "is", "the", "sky", "blue", "and", "so", "wide", "today", "of", "all", "days"]
VOCAB = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "##ly", "un"])}
BEFORE, AFTER, PAD = [2], [3], 0
INF = float("inf")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return GraphDriver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(autouse=True)
def _context(driver):
    driver.make_current(CONTEXT)
    yield
    driver.drain()


def make_pass(batch, tokens, integer=np.int32, mask=False):
    """Buffers of a pass, with answers of a decided row in them."""
    per_model = (batch, MODELS)
    answers = {
        "quality": np.full(per_model, 0.5, np.float32),
        "tokens_out": np.full(per_model, 100, np.float32),
        "cost_usd": np.full(per_model, 0.01, np.float32),
        "threshold": np.full(batch, 0.4, np.float32),
        "gap": np.full(batch, 0.1, np.float32),
        "index": np.ones(batch, np.int32),
        "status": np.zeros(batch, np.uint8),
        "cause": np.full(batch, 3, np.uint8),
    }
    return {
        "ids": np.full((batch, tokens), 77, integer),
        **({"mask": np.full((batch, tokens), 77, integer)} if mask else {}),
        "lengths": np.ones(batch, np.int32),
        "policy_of_row": np.zeros(batch, np.int32),
        "billed_tokens": np.full(per_model, np.nan, np.float32),
        "tokens_out": np.zeros(per_model, np.float32),
        "extra_usd": np.ones(per_model, np.float32),
        "allowed": np.zeros(per_model, np.uint8),
        "sequence": np.zeros(1, np.int32),
        "done": np.zeros(1, np.int32),
        "answers": answers,
        "x": np.full((batch, DIM), 0.25, np.float32),
    }


class Routed:
    """A RecordedRoute over a stand-in's graphs, and everything it was made of."""

    def __init__(self, driver, *, passes=None, window=(INF,) * MODELS, max_tokens=TOKENS, support=True):
        rng = np.random.default_rng(0)
        heads = Heads(
            skip=rng.normal(size=(MODELS, DIM)).astype(np.float32),
            bias=np.zeros(MODELS, np.float32),
            len_skip=np.zeros((MODELS, DIM), np.float32),
            len_bias=np.zeros(MODELS, np.float32),
        )
        self.plan = DecidePlan(heads)
        self.policy = self.make_policy()
        near = {} if not support else {
            "centroids": np.full((1, DIM), 0.25, np.float32), "distances": np.linspace(0.1, 1, 101, dtype=np.float32)
        }  # fmt: skip
        self.router = Router(self.plan, None, list(window), [1.0, 2.0, 1.0], [INF] * MODELS, **near)
        self.tokenizer = WordPiece(VOCAB)
        self.passes = [make_pass(1, TOKENS)] if passes is None else passes
        self.graphs = [driver.graph(one["sequence"], one["done"]) for one in self.passes]
        for one, graph in zip(self.passes, self.graphs, strict=True):
            one["replay"] = address_of(graph)
        self.route = RecordedRoute(
            self.router, self.tokenizer, before=BEFORE, after=AFTER, max_tokens=max_tokens, pad_id=PAD,
            passes=self.passes, **driver.arguments,
        )  # fmt: skip

    def make_policy(self, **terms):
        ones = np.ones(MODELS, np.float32)
        allowed = np.ones(MODELS, np.bool_)
        return DecidePolicy(
            self.plan, alpha_hi=0.7, alpha_lo=0.3, offset=0, worth=0, in_rate=ones, out_rate=ones, fixed_usd=ones,
            allowed=allowed, **terms,
        )  # fmt: skip

    def one(self, text, row=5):
        return self.route.route_one(text, self.policy, row)


def ids_of(text, max_tokens=TOKENS):
    own, starts = WordPieceTokenizer(WordPiece(VOCAB)).encode(text)
    room = max_tokens - 2
    if len(own) > room:
        head, tail = cut_between_words(starts, room)
        own = np.concatenate([own[:head], own[tail:]])
    return [*BEFORE, *own.tolist(), *AFTER]


@pytest.mark.parametrize(("integer", "mask"), [(np.int32, False), (np.int64, True), (np.int32, True)])
def test_ids_lengths_and_mask_are_written_as_the_encoder_reads_them(driver, integer, mask):
    made = Routed(driver, passes=[make_pass(2, TOKENS, integer, mask)])
    for text in ("why is the sky blue", "unwhyly", " ".join(WORDS * 3), "why"):
        assert made.one(text) is not None
        wanted, one = ids_of(text), made.passes[0]
        assert one["ids"][0].tolist() == wanted + [PAD] * (TOKENS - len(wanted))
        assert one["lengths"].tolist() == [len(wanted), 1]
        assert (one["ids"][1] == 77).all()  # another row is nobody's
        if mask:
            assert one["mask"][0].tolist() == [1] * len(wanted) + [0] * (TOKENS - len(wanted))


def test_everything_else_that_the_recording_reads_is_of_this_request(driver):
    made = Routed(driver)
    one = made.passes[0]
    made.route.route_request("why is", ("the sky", "blue " * 9), made.policy, 41, bytes([1, 0, 1]), 500, 1)
    assert one["policy_of_row"].tolist() == [41]
    assert one["allowed"].tolist() == [[1, 0, 1]]
    assert np.isnan(one["tokens_out"]).all()
    assert (one["extra_usd"] == 0).all()
    assert one["billed_tokens"].tolist() == [[13] * MODELS]
    made.one("why")
    assert one["allowed"].tolist() == [[1, 1, 1]]
    assert one["policy_of_row"].tolist() == [5]
    assert one["billed_tokens"].tolist() == [[1] * MODELS]


def test_the_shortest_then_smallest_pass_that_holds_the_prompt_is_replayed(driver):
    shapes = [(8, 16), (2, 16), (2, 4), (8, 4), (2, 8), (8, 8)]
    made = Routed(driver, passes=[make_pass(*shape) for shape in shapes])
    for words, wanted in ((1, (2, 4)), (2, (2, 4)), (3, (2, 8)), (6, (2, 8)), (7, (2, 16)), (40, (2, 16))):
        before = [graph.launches for graph in made.graphs]
        made.one(" ".join((WORDS * 9)[:words]))
        launched = [at for at, graph in enumerate(made.graphs) if graph.launches > before[at]]
        assert [shapes[at] for at in launched] == [wanted]


def test_the_answer_is_what_the_recording_left_with_the_bill_and_the_support(driver):
    made = Routed(driver)
    answers = made.passes[0]["answers"]
    answers["quality"][0] = [0.1, 0.2, 0.3]
    answers["index"][0] = 2
    result, billed, truncated, support, own = made.one("why is the sky blue")
    assert (result.index_at(0), billed, truncated, support, own) == (2, 5, False, 1.0, None)
    assert result.quality[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert (result.threshold_at(0), result.gap_at(0), result.cause_at(0)) == pytest.approx((0.4, 0.1, 3))
    answers["quality"][:] = 0.9  # a result is a copy: the next request may come
    assert result.quality[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert made.one(" ".join(WORDS * 3))[2] is True


def test_a_prompt_of_little_support_goes_where_the_policy_says(driver):
    made = Routed(driver)
    made.policy = made.make_policy(min_support=0.5, unsupported_allowed=np.array([False, False, True]))
    made.passes[0]["x"][:] = 9
    result, _, _, support, _ = made.one("why")
    assert (support, result.index_at(0), result.cause_at(0)) == (0.0, 2, 5)


def test_the_host_waits_until_the_number_is_there(driver):
    made = Routed(driver)
    made.graphs[0].delay_us = 5000
    start = time.monotonic()
    for _ in range(3):
        assert made.one("why") is not None
    assert time.monotonic() - start > 0.014
    assert made.graphs[0].queries > 0
    assert made.passes[0]["done"][0] == made.passes[0]["sequence"][0] == 3


def test_other_threads_run_while_the_host_waits(driver):
    """One of them ends the wait: it could not while the host held Python's lock."""
    made = Routed(driver)
    one, graph = made.passes[0], made.graphs[0]
    graph.delay_us = 20_000_000
    driver.kept.append(made)  # the stand-in's thread writes into the buffers at last

    def answer():
        while not graph.launches:
            time.sleep(0.001)
        one["done"][0] = one["sequence"][0]

    thread = threading.Thread(target=answer)
    thread.start()
    start = time.monotonic()
    assert made.one("why") is not None
    assert time.monotonic() - start < 10
    thread.join()


@pytest.mark.parametrize("code", [1, 700, 719])
@pytest.mark.parametrize("call", ["launch_code", "query_code"])
def test_an_error_of_the_driver_is_told_and_means_a_failed_device(driver, call, code):
    from ipr_engine.cuda.lost_device import is_device_error

    made = Routed(driver)
    setattr(made.graphs[0], call, code)
    made.graphs[0].delay_us = 500_000 if call == "query_code" else 0
    driver.kept.append(made)  # the stand-in's thread writes into the buffers later
    with pytest.raises(RuntimeError, match=f"CUDA driver: the recording of 1 x 16 failed with error {code}$") as failed:
        made.one("why")
    assert is_device_error(pytest.importorskip("torch", reason=skips.GPU), failed.value)


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (2, OutOfDeviceMemoryError, "bucket 1 x 16: out of memory on the device"),
        (
            701,
            BackendUnavailableError,
            "bucket 1 x 16: the CUDA driver refused to launch its recording with error 701; the",
        ),
        (900, BackendUnavailableError, "with error 900, since another thread captures a graph; the engine goes on"),
        (908, BackendUnavailableError, "with error 908, since another thread captures a graph; the engine goes on"),
    ],
)
def test_a_launch_that_was_refused_is_an_error_of_the_call_and_the_next_one_goes_through(driver, code, kind, told):
    made = Routed(driver)
    before = made.one("why")
    made.graphs[0].launch_code = code
    with pytest.raises(kind, match=told) as refused:
        made.one("why")
    assert not isinstance(refused.value, DeviceLostError)
    made.graphs[0].launch_code = 0
    assert made.one("why")[0].index_at(0) == before[0].index_at(0)


def test_what_flies_has_ended_where_a_later_launch_of_the_batch_is_refused(driver):
    made = Routed(driver, passes=[make_pass(2, TOKENS), make_pass(2, 8)])
    made.graphs[0].delay_us, made.graphs[1].launch_code = 50_000, 2
    with pytest.raises(OutOfDeviceMemoryError, match=r"^bucket 2 x 8: "):
        made.route.route_many([*["why " * 12] * 2, "why"], made.policy, 5)
    assert made.passes[0]["done"][0] == made.passes[0]["sequence"][0] == 1
    made.graphs[1].launch_code = 0
    assert made.route.route_many([*["why " * 12] * 2, "why"], made.policy, 5) is not None


def test_the_host_goes_on_waiting_while_another_thread_captures(driver):
    made = Routed(driver)
    made.graphs[0].delay_us, made.graphs[0].query_code = 20_000, 900
    assert made.one("why") is not None
    assert made.graphs[0].queries > 1


def test_work_that_ends_without_answers_is_an_error_and_no_endless_wait(driver):
    made = Routed(driver)
    made.graphs[0].delay_us = -1
    with pytest.raises(RuntimeError, match="the recording of 1 x 16 ended without its answers"):
        made.one("why")


def test_every_pass_is_replayed_once_when_that_is_asked_for(driver):
    made = Routed(driver, passes=[make_pass(4, TOKENS), make_pass(4, 8)])
    made.route.replay_each()
    assert [graph.launches for graph in made.graphs] == [1, 1]
    made.graphs[1].delay_us = -1
    with pytest.raises(RuntimeError, match="the recording of 4 x 8 ended without its answers"):
        made.route.replay_each()


def test_numbers_of_requests_go_round_and_are_never_zero(driver):
    made = Routed(driver)
    made.passes[0]["sequence"][0] = made.passes[0]["done"][0] = 2**31 - 1
    assert made.one("why") is not None
    assert made.passes[0]["done"][0] == 1


def test_a_thread_without_the_context_gets_it_for_the_call(driver):
    made = Routed(driver)
    seen = []

    def other():
        driver.make_current(0)
        seen.append(made.one("why") is not None)
        seen.append((driver.library.stand_in_pushes(), driver.library.stand_in_pops()))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [True, (1, 1)]
    made.one("why")
    assert driver.library.stand_in_pushes() == 0


@pytest.mark.parametrize(
    ("window", "text", "asked", "allowed", "tokens_out"),
    [
        ((50, INF, INF), "why", {}, [0, 1, 1], 100),  # 100 tokens are expected
        ((INF, 103, INF), "why is", {}, [1, 0, 1], 100),  # 2 tokens are 4 of the second candidate's
        ((INF,) * 3, "why", {"max_tokens": 99}, [1, 1, 1], 99),
        ((INF,) * 3, "why", {"answers": 2}, [1, 1, 1], 200),
    ],
)
def test_a_row_whose_output_changes_something_passes_a_second_time(driver, window, text, asked, allowed, tokens_out):
    made = Routed(driver, window=window)
    terms = {"max_tokens": -1, "answers": 1, **asked}
    made.route.route_request(text, (), made.policy, 0, None, **terms)
    assert made.graphs[0].launches == 2
    assert made.passes[0]["allowed"].tolist() == [allowed]
    assert (made.passes[0]["tokens_out"] == tokens_out).all()
    made.route.route_request("why", (), made.policy, 0, bytes([1, 1, 0]), 100, 1)  # nothing of it is left
    assert made.passes[0]["allowed"].tolist() == [[window[0] != 50, 1, 0]]
    assert made.graphs[0].launches == (4 if window[0] == 50 else 3)


@pytest.mark.parametrize("delay_us", [0, 300])
def test_a_batch_goes_through_passes_whose_buffers_stay_as_they_are_until_they_are_read(driver, delay_us):
    """Each pass answers with the length that it saw: a row gets that of its own prompt."""
    passes = [make_pass(rows, tokens) for rows, tokens in ((1, 8), (4, 8), (4, 8), (1, 16), (4, 16), (4, 16))]
    made = Routed(driver, passes=passes)
    for graph, one in zip(made.graphs, passes, strict=True):
        graph.delay_us = delay_us
        graph.watched = one["ids"].ctypes.data + 4  # the first id of a prompt's own
    rng = np.random.default_rng(1)
    prompts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 20, 700)]
    result, billed, truncated, support, own = made.route.route_many(prompts, made.policy, 3)
    assert len(result) == 700
    assert billed.tolist() == [len(prompt.split()) for prompt in prompts]
    assert truncated.tolist() == [len(prompt.split()) > TOKENS - 2 for prompt in prompts]
    assert (support == 1).all()
    assert own is None
    assert (result.index == 1).all()
    assert sum(graph.launches for graph in made.graphs) < 230
    assert not any(graph.torn for graph in made.graphs)
    assert all(
        graph.launches > 20 for graph in made.graphs if graph is not made.graphs[0] and graph is not made.graphs[3]
    )


def test_a_batch_is_sorted_into_passes_as_python_plans_them(driver):
    from ipr_engine.cuda.buckets import make_buckets, plan_passes

    buckets = make_buckets(TOKENS, (1, 2, 4))
    made = Routed(driver, passes=[make_pass(*bucket.shape) for bucket in buckets])
    shapes = [bucket.shape for bucket in buckets]
    rng = np.random.default_rng(2)
    for count in (1, 3, 9, 40):
        prompts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 20, count)]
        before = [graph.launches for graph in made.graphs]
        made.route.route_many(prompts, made.policy, 0)
        launched = [graph.launches - earlier for graph, earlier in zip(made.graphs, before, strict=True)]
        lengths = sorted((min(len(prompt.split()) + 2, TOKENS) for prompt in prompts), reverse=True)
        planned = [shapes[step.bucket] for step in plan_passes(lengths, buckets)]
        assert launched == [planned.count(shape) for shape in shapes]


def test_a_bad_prompt_of_a_batch_is_named_and_leaves_nothing_in_flight(driver):
    made = Routed(driver, passes=[make_pass(4, TOKENS), make_pass(4, TOKENS)])
    for graph in made.graphs:
        graph.delay_us = 2000
    with pytest.raises(InvalidInputError, match=r"prompts\[400\]: expected text, got 1 bytes without one token"):
        made.route.route_many([*["why"] * 400, " ", "why"], made.policy, 0)
    assert sum(graph.launches for graph in made.graphs) == 64  # 256 rows that came before
    for one in made.passes:
        assert one["done"][0] == one["sequence"][0]
    assert len(made.route.route_many(["why"] * 9, made.policy, 0)[0]) == 9


def test_an_answer_that_names_no_candidate_is_a_failed_device_and_leaves_nothing_in_flight(driver):
    made = Routed(driver, passes=[make_pass(4, TOKENS), make_pass(4, TOKENS)])
    for graph in made.graphs:
        graph.delay_us = 2000
    made.passes[0]["answers"]["index"][2] = 77
    with pytest.raises(RuntimeError, match="CUDA driver: a recording chose candidate 77 of 3"):
        made.route.route_many(["why"] * 20, made.policy, 0)
    for one in made.passes:
        assert one["done"][0] == one["sequence"][0]


def test_no_prompt_is_no_launch(driver):
    made = Routed(driver)
    result, billed, *_ = made.route.route_many([], made.policy, 0)
    assert (len(result), len(billed), made.graphs[0].launches) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.pop("lengths"), "passes: expected an array lengths"),
        (lambda one: one.update(x=np.zeros((1, DIM + 1), np.float32)), "x: expected"),
        (
            lambda one: one.update(ids=np.zeros((1, TOKENS), np.int64), mask=np.zeros((1, TOKENS), np.int32)),
            "mask: exp",
        ),
        (lambda one: one.update(replay=0), "replay: expected the address of a graph, got 0"),
        (lambda one: one["done"].setflags(write=False), "done: expected a writable array"),
        (lambda one: one.pop("answers"), "passes: expected a dict answers"),
        (lambda one: one.update(answers=list(one["answers"].items())), "passes: expected a dict answers"),
    ],
)
def test_buffers_that_do_not_fit_are_refused(driver, change, words):
    made = Routed(driver)
    change(made.passes[0])
    with pytest.raises(InvalidInputError, match=words):
        RecordedRoute(
            made.router, made.tokenizer, before=BEFORE, after=AFTER, max_tokens=TOKENS, pad_id=PAD, passes=made.passes,
            **driver.arguments,
        )  # fmt: skip


def test_buffers_stay_while_the_route_lives_whatever_becomes_of_the_dicts(driver):
    made = Routed(driver)
    (one,) = made.passes
    buffers = [
        weakref.ref(array) for array in (*one.values(), *one["answers"].values()) if isinstance(array, np.ndarray)
    ]
    made.passes.clear()
    one["answers"].clear()
    one.clear()
    gc.collect()
    assert all(array() is not None for array in buffers)
    assert made.one("why is the sky blue") is not None
    made.route = None
    gc.collect()
    assert all(array() is None for array in buffers)


def test_a_policy_of_other_heads_is_refused(driver):
    made = Routed(driver)
    heads = Heads(skip=np.zeros((1, DIM), np.float32), bias=np.zeros(1, np.float32))
    one = np.ones(1, np.float32)
    other = DecidePolicy(
        DecidePlan(heads), alpha_hi=0.7, alpha_lo=0.3, offset=0, worth=0, in_rate=one, out_rate=one, fixed_usd=one,
        allowed=one.astype(np.bool_), min_support=0.5, unsupported_allowed=one.astype(np.bool_),
    )  # fmt: skip
    made.passes[0]["x"][:] = 9
    with pytest.raises(InvalidInputError, match="policy: expected one for 3 models, got one for 1"):
        made.route.route_one("why", other, 0)
    assert made.graphs[0].launches == 0


def test_shapes_that_hold_no_prompt_are_refused(driver):
    for max_tokens, words in ((2, "max_tokens: expected more than the 2 special ids"), (17, "one of 17 tokens")):
        with pytest.raises(InvalidInputError, match=words):
            Routed(driver, max_tokens=max_tokens)
    for bad in (3, None, b"why", "\ud800"):
        with pytest.raises(InvalidInputError, match="prompt: expected"):
            Routed(driver).one(bad)
    with pytest.raises(InvalidInputError, match="every number of rows with every number of tokens: 4 shapes, got 3"):
        Routed(driver, passes=[make_pass(1, 8), make_pass(4, 8), make_pass(4, TOKENS)])
    with pytest.raises(InvalidInputError, match="allowed: expected 3 bytes or None"):
        Routed(driver).route.route_request("why", (), Routed(driver).policy, 0, b"\1", -1, 1)
