"""The torch tier under recorded buckets: which bucket, in what order, how often waited for, and what goes wrong."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ipr_engine.cuda.buckets import Passes, make_buckets
from ipr_engine.cuda.graphs import CudaGraphs, EagerGraphs, open_graphs
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.encoders.torch_graphs import TorchGraphEncoder
from ipr_engine.errors import BackendUnavailableError, DeviceLostError, InvalidInputError, OutOfDeviceMemoryError
from tests.support import gpu_engines  # before anything that imports triton
from tests.support.gpu_engines import DEVICE, PROMPTS, make_export, random_prompts
from tests.support.transformer_folders import make_bare_transformer

torch = gpu_engines.decide_implementations.torch
BOUND = 1e-5 if DEVICE == "emulated" else 1e-4  # of ||x||, float32: a GPU's matrix products differ in the last bits


class Counted(EagerGraphs):
    """Eager graphs that tell what was recorded, replayed and waited for; `fail` breaks the next replay."""

    def __init__(self):
        super().__init__("cpu")
        self.log, self.fail = [], None

    def for_owner(self):
        return self

    def record(self, label, work):
        recording = super().record(label, work)
        self.log.append(("record", label))
        graphs = self

        class Told:
            def replay(self):
                if graphs.fail is not None:
                    raise graphs.fail
                graphs.log.append(("replay", label))
                recording.replay()

            def wait(self):
                graphs.log.append(("wait", label))

        return Told()

    def since(self, kind):
        found = [label for what, label in self.log if what == kind]
        self.log.clear()
        return found


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def eager(export):
    return TorchEncoder.from_export(export, dtype="float32")


@pytest.fixture
def counted(eager):
    encoder = TorchGraphEncoder(eager, graphs=Counted(), batches=(1, 4))
    assert not encoder.graphs.log  # an engine that decides on the GPU has no use for these recordings
    encoder.record()
    return encoder


def test_embeddings_are_those_of_the_eager_tier_whatever_the_bucket(eager, export, rng):
    encoder = TorchGraphEncoder.from_export(export, device=DEVICE, dtype="float32", batches=(1, 2, 8))
    prompts = [*PROMPTS, "", *random_prompts(rng, 21)]
    got, want = encoder.encode(prompts), eager.encode(prompts)
    norms = np.linalg.norm(want.x, axis=1)
    assert (np.linalg.norm(got.x - want.x, axis=1) <= BOUND * norms).all()
    assert not got.x[len(PROMPTS)].any()
    np.testing.assert_array_equal(got.billed_tokens, want.billed_tokens)
    np.testing.assert_array_equal(got.truncated, want.truncated)
    assert (encoder.identity, encoder.dim, encoder.native) == (eager.identity, eager.dim, None)


@pytest.mark.parametrize(("family", "pooling"), [("roberta", "cls"), ("qwen3", "last")])
def test_other_families_and_poolings_are_embedded_as_the_eager_tier_does(tmp_path, rng, family, pooling):
    folder = make_bare_transformer(tmp_path, family)
    arguments = {"pooling": pooling, "max_tokens": 48}
    encoder = TorchGraphEncoder.from_folder(folder, device=DEVICE, batches=(1, 4), **arguments)
    want = TorchEncoder.from_folder(folder, **arguments).encode(PROMPTS).x
    assert (np.linalg.norm(encoder.encode(PROMPTS).x - want, axis=1) <= BOUND * np.linalg.norm(want, axis=1)).all()


def test_buckets_are_recorded_largest_first_and_the_largest_batches_twice(counted):
    assert counted.graphs.since("record") == [
        "4 x 48", "4 x 48", "4 x 32", "4 x 32", "4 x 16", "4 x 16", "1 x 48", "1 x 32", "1 x 16",
    ]  # fmt: skip


def test_buckets_are_recorded_once_at_the_first_call_that_encodes(eager):
    encoder = TorchGraphEncoder(eager, graphs=Counted(), batches=(1, 4))
    encoder.encode(["why"])
    assert len(encoder.graphs.since("record")) == 9
    encoder.encode(["why"])
    encoder.record()
    assert not encoder.graphs.since("record")


def test_rows_go_to_the_smallest_bucket_that_holds_them_and_are_waited_for_once(counted):
    counted.graphs.log.clear()
    counted.encode(["why"])
    assert counted.graphs.log == [("replay", "1 x 16"), ("wait", "1 x 16")]
    counted.graphs.log.clear()
    counted.encode(["why", "the story " * 12, "how to"])  # one long, two short that ride along
    assert [what for what, _ in counted.graphs.log].count("wait") == 1
    assert counted.graphs.since("replay")[0].endswith("x 32")


def test_a_batch_over_the_largest_bucket_is_split_and_filled_while_another_runs(counted, eager):
    prompts = [f"why {i}" for i in range(11)]
    counted.graphs.log.clear()
    got = counted.encode(prompts)
    assert counted.graphs.log == [
        ("replay", "4 x 16"), ("replay", "4 x 16"), ("wait", "4 x 16"), ("replay", "4 x 16"), ("wait", "4 x 16"),
    ]  # fmt: skip
    np.testing.assert_allclose(got.x, eager.encode(prompts).x, atol=1e-6)


def test_a_row_does_not_see_what_a_bucket_held_before(counted):
    alone = counted.encode(["why"]).x
    counted.encode(["the story " * 9] * 5)
    np.testing.assert_array_equal(counted.encode(["why"]).x, alone)


def test_threads_take_turns(counted, eager):
    want = {prompt: eager.encode([prompt]).x for prompt in PROMPTS}
    wrong = []

    def work(prompt):
        for _ in range(20):
            if np.abs(counted.encode([prompt]).x - want[prompt]).max() > 1e-5:
                wrong.append(prompt)

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def lost(text):
    """As torch tells of a failed device: 2.8 and later by a class of its own."""
    return getattr(torch, "AcceleratorError", RuntimeError)(text)


@pytest.mark.parametrize(
    "error", [lost("CUDA error: unspecified launch failure\nmore"), RuntimeError("Triton Error [CUDA]: device lost")]
)
def test_a_failed_device_is_told_and_nothing_more_is_done(counted, error):
    counted.graphs.fail = error
    with pytest.raises(DeviceLostError, match="device: cpu failed in flight"):
        counted.encode(["why"])
    counted.graphs.fail = None
    with pytest.raises(DeviceLostError, match="failed before"):
        counted.encode(["why"])


def test_an_error_that_is_not_the_devices_goes_on_as_it_is(counted):
    counted.graphs.fail = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        counted.encode(["why"])
    counted.graphs.fail = None
    counted.encode(["why"])


class Small(Counted):
    """Runs out of memory at a bucket, as a CUDA device does; its `planning` is CudaGraphs'."""

    _memory_bytes = None

    def __init__(self, at, hidden):
        super().__init__()
        self._at, self._hidden = at, hidden
        cuda = SimpleNamespace(mem_get_info=lambda _: (7 << 20, 80 << 30))
        self._torch = SimpleNamespace(**{**vars(torch), "cuda": cuda})

    planning = CudaGraphs.planning

    def record(self, label, work):
        if label == self._at:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except RuntimeError:
                if self._hidden:  # torch's own error at the end of a capture that broke
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
                raise
        return super().record(label, work)


@pytest.mark.parametrize("hidden", [False, True])
def test_out_of_memory_names_the_bucket_and_what_was_free(eager, hidden):
    with pytest.raises(OutOfDeviceMemoryError, match=r"bucket 4 x 32: out of memory on cpu \(7 MiB were free\)"):
        TorchGraphEncoder(eager, graphs=Small("4 x 32", hidden), batches=(1, 4)).record()


def test_a_device_that_is_missing_is_told():
    with pytest.raises(InvalidInputError, match="device: expected 'cuda'"):
        open_graphs("mps")
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailableError, match=r"finds no CUDA device or driver; .*, or take device 'cpu'"):
            open_graphs("cuda")


def test_the_registry_records_on_a_gpu_and_is_eager_on_the_cpu(export):
    assert isinstance(open_encoder(export, tier="torch", device=DEVICE), TorchGraphEncoder)
    assert isinstance(open_encoder(export, tier="torch"), TorchEncoder)


def test_wrong_batches_are_refused(eager):
    with pytest.raises(InvalidInputError, match="batches"):
        TorchGraphEncoder(eager, graphs=EagerGraphs(), batches=(0, 4))


def test_passes_collect_every_row_once_in_any_mix(rng):
    graphs, seen = Counted(), []

    class Slot:
        def __init__(self, graphs, bucket):
            self.bucket, self.rows = bucket, []
            self.recording = graphs.record(str(bucket), lambda: None)

    passes = Passes(graphs, make_buckets(64, (1, 2, 8)), Slot)

    def fill(slot, step):
        assert not slot.rows  # the last pass through it was collected
        slot.rows = list(range(step.begin, step.end))

    def collect(slot, step):
        assert slot.rows == list(range(step.begin, step.end))
        seen.extend(slot.rows)
        slot.rows = []

    for count in (0, 1, 3, 57):
        seen.clear()
        passes.run(sorted(rng.integers(1, 65, count).tolist(), reverse=True), fill, collect)
        assert seen == list(range(count))


def test_what_an_interrupted_call_enqueued_is_done_before_the_next_one_fills_its_buffers():
    done = []

    class Graphs(Counted):
        def settle(self):
            done.append("settled")

    class Recording:
        def __init__(self, label):
            self.replay, self.wait = (lambda: done.append(label)), lambda: None

    class Slot:
        def __init__(self, graphs, bucket):
            self.recording = Recording(str(bucket))

    def interrupt_second(slot, step):
        if step.begin:
            raise KeyboardInterrupt

    passes = Passes(Graphs(), make_buckets(64, (1,)), Slot)
    with pytest.raises(KeyboardInterrupt):
        passes.run([30, 10], interrupt_second, lambda slot, step: None)
    assert done == ["1 x 32", "settled"]
