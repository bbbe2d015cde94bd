"""CudaGraphs without a GPU: what it calls of torch, in which order, and that the installed torch has each of these calls.

The stand-in is torch.cuda's surface alone; it shows the sequence, not that a GPU would take it.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from contextlib import contextmanager
from functools import partial

import pytest

from ipr_engine.cuda.buckets import Bucket, Passes
from ipr_engine.cuda.graphs import WARM_UPS, CudaGraphs
from ipr_engine.errors import BackendUnavailableError, DeviceLostError, OutOfDeviceMemoryError
from tests.support.transformer_folders import import_torch

torch, _ = import_torch()
if torch.cuda.is_available():
    pytest.skip("machine lacks no GPU: the real thing runs in test_torch_graphs.py", allow_module_level=True)


class Surface:
    """Stands in for torch.cuda, and writes down what is asked of it."""

    def __init__(self, monkeypatch):
        self.names = ["replays", "side", "owner's side"]
        self.log, self.held, self.break_capture, self.break_replay = [], 0, None, None
        surface = self

        class Stream:
            def __init__(self, device):
                self.name = surface.names.pop(0)
                surface.log.append(f"stream {self.name}")

            def synchronize(self):
                surface.log.append(f"wait for {self.name}")

        class Event:
            def record(self, stream):
                surface.log.append(f"event in {stream.name}")

            def synchronize(self):
                surface.log.append("wait for event")

        class CUDAGraph:
            def replay(self):
                if surface.break_replay is not None:
                    raise surface.break_replay
                surface.log.append("replay")

        @contextmanager
        def stream(one):
            surface.log.append(f"in {one.name}")
            yield

        @contextmanager
        def graph(cuda_graph, pool=None, stream=None, capture_error_mode="global"):
            surface.log.append(f"capture in {stream.name}, {pool}, {capture_error_mode}")
            yield
            if surface.break_capture is not None:
                raise surface.break_capture

        stand_ins = {
            "is_available": lambda: True, "current_device": lambda: 0, "device_count": lambda: 1,
            "get_device_name": lambda _: "stand-in", "graph_pool_handle": lambda: "pool",
            "memory_reserved": lambda _: self.held, "mem_get_info": lambda _: (5 << 20, 80 << 30),
            "synchronize": lambda _: self.log.append("wait for device"),
            "Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "stream": stream, "graph": graph,
        }  # fmt: skip
        for name, stand_in in stand_ins.items():
            assert hasattr(torch.cuda, name)
            monkeypatch.setattr(torch.cuda, name, stand_in)


@pytest.fixture
def surface(monkeypatch):
    return Surface(monkeypatch)


def test_a_recording_is_warmed_up_in_the_side_stream_then_captured_there_and_launched_once(surface):
    graphs = CudaGraphs("cuda")
    surface.log.clear()
    recording = graphs.record("1 x 16", lambda: surface.log.append("work"))
    assert surface.log == [
        "in replays", "wait for device", "in side", *["work"] * WARM_UPS, "wait for side",
        "capture in side, pool, thread_local", "work", "replay", "event in replays", "wait for event",
    ]  # fmt: skip
    surface.log.clear()
    with graphs.exclusive():
        recording.replay()
        recording.wait()
    assert surface.log == ["in replays", "replay", "event in replays", "wait for event"]
    assert (graphs.device, graphs.kind) == ("cuda:0", "CUDA graphs")


def test_a_recording_holds_what_its_work_refers_to(surface):
    """The graph has their addresses: freed, they would be given to others, and replays would overwrite those."""

    class Buffer:
        pass

    buffer = Buffer()
    alive = weakref.ref(buffer)
    recording = CudaGraphs("cuda").record("1 x 16", partial(id, buffer))
    del buffer
    gc.collect()
    assert alive() is not None
    del recording
    gc.collect()
    assert alive() is None


def test_each_owner_of_recordings_captures_in_a_stream_of_its_own_and_replays_in_the_one_of_all(surface):
    graphs = CudaGraphs("cuda")
    owner = graphs.for_owner()
    surface.log.clear()
    owner.record("1 x 16", lambda: surface.log.append("work"))
    assert surface.log == [
        "in replays", "wait for device", "in owner's side", *["work"] * WARM_UPS, "wait for owner's side",
        "capture in owner's side, pool, thread_local", "work", "replay", "event in replays", "wait for event",
    ]  # fmt: skip
    surface.break_replay = RuntimeError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLostError, match="failed in flight"), owner.exclusive():
        torch.cuda.CUDAGraph().replay()
    with pytest.raises(DeviceLostError, match="failed before"), graphs.exclusive():
        pass


def test_work_that_cannot_be_captured_is_told_with_its_bucket(surface):
    graphs = CudaGraphs("cuda")
    surface.break_capture = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    with pytest.raises(BackendUnavailableError, match="bucket 1 x 16: the work cannot be captured") as told:
        graphs.record("1 x 16", lambda: None)
    assert not isinstance(told.value, DeviceLostError)


def test_the_bound_on_memory_names_the_bucket_that_passes_it(surface):
    graphs = CudaGraphs("cuda", memory_bytes=8 << 20)

    def make(graphs, bucket):
        surface.held += 3 << 20
        return type("Slot", (), {"recording": None})()

    with pytest.raises(OutOfDeviceMemoryError, match=r"bucket 4 x 16: .*12 MiB are held, 8 MiB were allowed"):
        Passes(graphs, [Bucket(16, 1), Bucket(16, 4), Bucket(32, 4)], make)


def test_a_device_lost_in_a_replay_ends_the_work(surface):
    graphs = CudaGraphs("cuda")
    recording = graphs.record("1 x 16", lambda: None)
    surface.break_replay = RuntimeError("CUDA error: unspecified launch failure")
    for told in ("failed in flight", "failed before"):
        with pytest.raises(DeviceLostError, match=rf"cuda:0 \(stand-in\) {told}"), graphs.exclusive():
            recording.replay()


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUDA driver error: out of memory"])
def test_memory_that_runs_out_at_a_launch_is_told_with_the_bucket_and_the_device_goes_on(surface, words):
    graphs = CudaGraphs("cuda")
    recording = graphs.record("8 x 64", lambda: None)
    surface.break_replay = RuntimeError(words)
    with (
        pytest.raises(OutOfDeviceMemoryError, match=r"^bucket 8 x 64: out of memory on the device"),
        graphs.exclusive(),
    ):
        recording.replay()
    surface.break_replay = None
    with graphs.exclusive():
        recording.replay()
    assert not graphs.failed


def test_memory_that_runs_out_at_plan_time_is_told_with_the_bucket(surface):
    def work():
        raise RuntimeError("CUDA error: out of memory")

    def make(graphs, bucket):
        graphs.record(str(bucket), work)

    graphs = CudaGraphs("cuda")
    with pytest.raises(OutOfDeviceMemoryError, match=r"^bucket 1 x 16: out of memory on cuda:0 \(5 MiB were free\)"):
        Passes(graphs, [Bucket(16, 1)], make)
    assert not graphs.failed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a row"), RuntimeError("CUDA error: misaligned")])
def test_what_is_in_flight_has_ended_before_an_error_leaves_the_passes(surface, error):
    """The next caller writes into the same buffers: a replay that still read them would answer by its number."""

    def make(graphs, bucket):
        return type("Slot", (), {"recording": graphs.record(str(bucket), lambda: None)})()

    def fill(slot, step):
        if step.begin:
            raise error

    passes = Passes(CudaGraphs("cuda"), [Bucket(16, 1), Bucket(32, 1)], make)
    surface.log.clear()
    told = DeviceLostError if isinstance(error, RuntimeError) else type(error)
    with pytest.raises(told):
        passes.run([20, 10], fill, lambda slot, step: None)
    assert surface.log == ["in replays", "replay", "event in replays", "wait for replays"]


def test_a_device_that_is_not_there_is_told(surface):
    with pytest.raises(BackendUnavailableError, match="'cuda:3' was asked for, and there are 1"):
        CudaGraphs("cuda:3")


def test_the_installed_torch_takes_the_arguments_that_are_given():
    assert {"pool", "stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)
    assert "stream" in inspect.signature(torch.cuda.Event.record).parameters
    for owner, name in (
        (torch.cuda.CUDAGraph, "replay"), (torch.cuda.Event, "synchronize"), (torch.cuda.Stream, "synchronize"),
        (torch, "OutOfMemoryError"), (torch.cuda.nvtx, "range"), (torch.cuda, "current_stream"),
    ):  # fmt: skip
        assert hasattr(owner, name)
