"""The triton tier: a BERT encoder by fused kernels, in recordings. Emulated where there is no GPU: Triton's interpreter, eager."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.cuda.buckets import Bucket
from ipr_engine.encoders.triton_graphs import TritonEncoder
from ipr_engine.errors import BackendUnavailableError, EngineMismatchError, InvalidInputError
from ipr_engine.gpu_router.route_slot import RouteSlot
from ipr_engine.kernels.plan import GpuPlan
from tests.support import triton_interpreter
from tests.support.decide_requests import make_heads
from tests.support.gpu_engines import DEVICE, PROMPTS, cpu_engine, gpu_engine, make_bundle, make_export, random_prompts

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter

FITS = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 128,
    "initializer_range": 0.1,
}
QUALITY = 4e-3  # of float16 states, as tests/gpu_router states it for a GPU


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("triton"), **FITS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, export):
    return make_bundle(tmp_path_factory.mktemp("bundle"), export, models=5, hidden=8, rank=2)


@pytest.fixture(scope="module")
def engine(folder):
    return gpu_engine(folder, tier="triton", batches=(1, 3))


@pytest.fixture(scope="module")
def cpu(folder):
    return cpu_engine(folder)


def test_embeddings_are_the_float32_models_within_the_gate(engine, cpu, rng):
    prompts = [*PROMPTS, *random_prompts(rng, 4), "why " * 200]
    got, want = engine.encode(prompts), cpu.encode(prompts)
    cosines = (got.x * want.x).sum(axis=1) / (np.linalg.norm(got.x, axis=1) * np.linalg.norm(want.x, axis=1))
    assert cosines.min() >= 0.9999
    np.testing.assert_array_equal(got.billed_tokens, want.billed_tokens)
    np.testing.assert_array_equal(got.truncated, want.truncated)
    assert engine.encoder.identity == cpu.encoder.identity
    assert engine.encoder.cosine >= 0.9999


def test_decisions_are_the_cpus_within_the_error(engine, cpu, rng):
    prompts = [*PROMPTS, *random_prompts(rng, 4)]
    for terms in ({"tau": 0.0}, {"tau": 0.4, "worth": 0.01}):
        got, want = (one.route_many(prompts, **terms) for one in (engine, cpu))
        np.testing.assert_allclose(got.qualities, want.qualities, atol=QUALITY)
        sure = want.gap > 4 * QUALITY
        np.testing.assert_array_equal(got.index[sure], want.index[sure])


def test_one_prompt_in_one_call_is_what_the_walk_gives_to_the_bit(engine):
    policy = engine.policy(tau=0.3)
    for prompt in PROMPTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.loaded.gpu, "recorded", None)
            [want] = engine.route_many([prompt], policy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(engine.loaded), "walk", None)
            got = engine.route(prompt, policy)
        assert got.to_dict() == want.to_dict()
        assert got.qualities.tobytes() == want.qualities.tobytes()


def test_a_row_does_not_depend_on_its_batch(engine, rng):
    prompts = random_prompts(rng, 3)
    policy = engine.policy(tau=0.3)
    with triton_interpreter.dots_in_order():
        together = engine.route_many(prompts, policy)
        for row, prompt in enumerate(prompts):
            assert engine.route(prompt, policy).qualities.tobytes() == together.qualities[row].tobytes()


def test_the_request_travels_in_one_block_that_the_first_kernel_copies(engine):
    slot = engine.loaded.gpu.router.passes.slots[0][0]
    assert "mask" not in slot.inputs.host
    assert slot.inputs.host["ids"].dtype == np.int32
    host, device = slot.inputs.words
    host.fill_(7)
    device.zero_()
    with engine.loaded.gpu.stream.graphs.exclusive():
        slot.recording.replay()
        slot.recording.wait()
    assert (device.cpu().numpy() == 7).all()


def test_a_pass_of_six_layers_is_26_kernels_and_nothing_of_torchs(tmp_path):
    """One for the ids, four a layer, one that pools and decides: what a recording of MiniLM holds."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from triton.runtime.interpreter import InterpretedFunction

    encoder = TritonEncoder.from_export(
        make_export(tmp_path, **(FITS | {"num_hidden_layers": 6})), device=DEVICE, max_tokens=16, batches=(1,)
    )
    heads = make_heads(np.random.default_rng(0), 11, 64, hidden=8)
    plan = GpuPlan(heads, device=encoder.graphs.device, policies=1)
    slot = RouteSlot(encoder.graphs, Bucket(16, 1), encoder, plan, fused=True)
    operators, kernels = set(), []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operators.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    if DEVICE == "cuda":  # a replay shows none of it: the work that was recorded, once more
        pytest.skip("counted where the work can be watched: emulated")

    def counted(kernel, *_, **__):  # the interpreter itself computes with torch
        kernels.append(kernel.__name__)

    with pytest.MonkeyPatch.context() as patch, encoder.graphs.exclusive(), Watched():
        patch.setattr(InterpretedFunction, "run", counted)
        slot.recording.replay()
    assert operators <= {"view", "slice", "detach"}, operators
    assert len(kernels) == 1 + 4 * 6 + 1 <= 32
    assert kernels[0] == "embed"
    assert kernels[-1] == "decide_kernel"


def test_it_is_taken_by_name_and_says_so(folder, engine):
    assert "triton 64-d float16" in repr(engine)
    assert "torch 64-d" in repr(Engine.load(folder, device=DEVICE, batches=(1,)))


def test_a_model_that_does_not_fit_is_refused_with_the_reason(tmp_path):
    export = make_export(tmp_path, hidden_size=48, num_attention_heads=3)
    folder = make_bundle(tmp_path, export)
    with pytest.raises(
        BackendUnavailableError, match=r"'triton' does not run this model: hidden_size.*pass tier='torch'"
    ):
        gpu_engine(folder, tier="triton")


def test_it_needs_a_gpu(folder):
    with pytest.raises(InvalidInputError, match=r"tier: 'triton' runs on a GPU; pass device='cuda'"):
        Engine.load(folder, tier="triton")


def test_embeddings_that_differ_from_pytorchs_are_refused_at_load(folder, monkeypatch):
    from ipr_engine.encoders import triton_graphs

    class Wrong(triton_graphs.BertPlan):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.words = self.words.flip(0).contiguous()  # the embeddings of other ids

    monkeypatch.setattr(triton_graphs, "BertPlan", Wrong)
    with pytest.raises(EngineMismatchError, match=r"gives embeddings of a cosine of .* expected 0.9999 or more"):
        gpu_engine(folder, tier="triton", batches=(1,))


def test_the_buckets_of_an_owner_share_one_workspace_and_two_owners_share_none(engine):
    def storages(passes):
        return {slot.inputs.graphs.scratch.data_ptr() for slots in passes.slots.values() for slot in slots}

    engine.encode(["why"])
    route, encode = storages(engine.loaded.gpu.router.passes), storages(vars(engine.encoder)["_passes"])
    assert (len(route), len(encode)) == (1, 1)
    assert not route & encode
    assert engine.encoder.graphs.scratch is None  # the comparison at load had one of its own


def test_a_workspace_that_a_large_batch_left_dirty_changes_no_bit(folder, engine, rng):
    prompts = random_prompts(rng, 3)
    fresh = [gpu_engine(folder, tier="triton", batches=(1,)).encode(prompts[:1]).x]
    engine.encode(["why " * 200, *prompts])
    fresh.append(engine.encode(prompts[:1]).x)
    engine.route_many(["why " * 200, *prompts], tau=0.3)
    after = engine.route(prompts[0], tau=0.3).qualities
    for passes in (engine.loaded.gpu.router.passes, vars(engine.encoder)["_passes"]):
        passes.graphs.scratch.fill_(255)  # NaN, read as float16
    fresh.append(engine.encode(prompts[:1]).x)
    assert len({x.tobytes() for x in fresh}) == 1
    assert engine.route(prompts[0], tau=0.3).qualities.tobytes() == after.tobytes()
