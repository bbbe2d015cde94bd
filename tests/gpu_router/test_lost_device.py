"""A device lost in flight is told, and nothing more is asked of it: the engine refuses, or the CPU takes over where asked to."""

import logging

import numpy as np
import pytest

from ipr_engine.errors import BackendUnavailableError, DeviceLostError, OutOfDeviceMemoryError
from tests.support.decide_implementations import ON_DEVICE
from tests.support.gpu_engines import PROMPTS, gpu_engine

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter


def break_device(engine, monkeypatch):
    def lost(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    for slots in engine.loaded.gpu.router.passes.slots.values():
        for slot in slots:
            monkeypatch.setattr(slot.recording, "replay", lost)


def test_a_lost_device_is_told_and_the_engine_refuses_further_work(folder, monkeypatch):
    engine = gpu_engine(folder, batches=(1,))
    break_device(engine, monkeypatch)
    with pytest.raises(DeviceLostError, match="failed in flight: CUDA error: an illegal memory access"):
        engine.route("why", tau=0.3)
    for call in (lambda: engine.route("why", tau=0.3), lambda: engine.encode("why")):
        with pytest.raises(DeviceLostError, match=r"failed before .* does no further work"):
            call()


@pytest.mark.parametrize("fallback", [None, "cpu"])
def test_a_device_lost_in_the_one_call_is_told_once_as_such(folder, monkeypatch, fallback):
    engine = gpu_engine(folder, batches=(1,), fallback=fallback)
    policy = engine.policy(tau=0.3)
    before = engine.route("why", policy)  # the policy gets its row: the next prompt takes the one call

    def lost():
        raise RuntimeError("CUDA driver: the recording of 1 x 16 failed with error 700")

    for slots in engine.loaded.gpu.router.passes.slots.values():
        for slot in slots:
            monkeypatch.setattr(slot.recording, "replay", lost)
    if fallback:
        assert engine.route("why", policy).model == before.model
        return
    with pytest.raises(
        DeviceLostError, match="failed in flight: CUDA driver: the recording of 1 x 16 failed with error 700"
    ) as told:
        engine.route("why", policy)
    assert told.value.__cause__ is None  # the walk did not ask the device once more
    with pytest.raises(DeviceLostError, match=r"failed before .* does no further work"):
        engine.route("why", policy)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (
            "CUDA error: out of memory",
            OutOfDeviceMemoryError,
            "device: out of memory on cpu .* smaller or fewer batches",
        ),
        ("Triton Error [CUDA]: out of memory", OutOfDeviceMemoryError, "device: out of memory on cpu"),
        (
            "CUDA error: too many resources requested for launch",
            BackendUnavailableError,
            "device: cpu refused the work",
        ),
        (
            "CUDA error: operation not permitted when stream is capturing",
            BackendUnavailableError,
            "cpu refused the work",
        ),
        (
            "CUDA error: operation failed due to a previous error during capture",
            BackendUnavailableError,
            "cpu refused the work",
        ),
    ],
)
def test_work_that_was_refused_is_an_error_of_the_call_and_the_engine_goes_on(folder, words, kind, told):
    engine = gpu_engine(folder, batches=(1,))
    policy = engine.policy(tau=0.3)
    before = engine.route("why", policy)

    def refused(*_):
        raise RuntimeError(words)

    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            for slots in engine.loaded.gpu.router.passes.slots.values():
                for slot in slots:
                    patch.setattr(slot.recording, "replay", refused)
            with pytest.raises(kind, match=told if not ON_DEVICE else told.replace("cpu", "cuda.*")) as error:
                engine.route("why", policy)
            assert not isinstance(error.value, DeviceLostError)
        assert engine.route("why", policy).model == before.model


def test_a_device_lost_while_a_policy_gets_its_row_is_left_to_the_cpu(folder, cpu, monkeypatch):
    engine = gpu_engine(folder, batches=(1,), fallback="cpu")

    def lost(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine.loaded.gpu.heads, "row_of", lost)
    assert engine.route("why", tau=0.3).model == cpu.route("why", tau=0.3).model


def test_a_device_lost_while_a_policy_gets_its_row_is_taken_over(folder, monkeypatch):
    engine = gpu_engine(folder, batches=(1,), fallback="cpu")
    before = engine.route("why", tau=0.3)
    policy = engine.policy(tau=0.31)

    def lost(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(type(engine.loaded.gpu.heads), "row_of", lost)
    assert engine.route("why", policy).model == before.model


def test_a_cpu_engine_takes_over_where_that_was_asked_for(folder, cpu, monkeypatch, caplog):
    engine = gpu_engine(folder, batches=(1,), fallback="cpu")
    assert "fallback=cpu" in repr(engine)
    policy = engine.policy(tau=0.3)
    break_device(engine, monkeypatch)
    with caplog.at_level(logging.ERROR, logger="ipr_engine.engine"):
        got = engine.route_many(PROMPTS, policy)
    assert "served by the CPU from now on" in caplog.text
    np.testing.assert_allclose(got.qualities, cpu.route_many(PROMPTS, tau=0.3).qualities, atol=1e-5)
    assert "on cpu" in repr(engine)
    assert engine.route("why", policy).model == cpu.route("why", tau=0.3).model
    assert len(engine.encode(PROMPTS)) == len(PROMPTS)
