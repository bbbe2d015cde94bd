"""The forward pass of every bucket may be captured: no value of a tensor reaches the host, no shape depends on one.

A CUDA capture fails at the first such wait. Without a GPU the same operators are watched on the CPU, with torch told that a
stream is capturing, as it will tell the model then.
"""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.cuda.block import Block
from ipr_engine.cuda.buckets import fill_rows
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.encoders.torch_graphs import TorchGraphEncoder
from tests.support import gpu_engines
from tests.support.gpu_engines import make_export
from tests.support.transformer_folders import make_bare_transformer

torch = gpu_engines.decide_implementations.torch
# lift_fresh: a constant made of a Python number is copied from memory that is not pinned
WAITS = {
    "lift_fresh",
    "_local_scalar_dense",
    "nonzero",
    "item",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
    "_unique2",
    "bincount",
}


def watched():
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoWait(TorchDispatchMode):
        """Raises on an operator that waits for the device, or copies between devices."""

        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__.split(".")[-1]
            self.seen += 1
            if name in WAITS:
                raise AssertionError(f"{name} waits for the device")
            if name.startswith("index") and any(
                getattr(index, "dtype", None) == torch.bool for index in (args[1] if len(args) > 1 else ()) or ()
            ):
                raise AssertionError("indexing by a mask waits for the device")
            return function(*args, **(kwargs or {}))

    return NoWait()


@pytest.fixture
def capturing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


CASES = [("bert", "mean", True), ("roberta", "cls", False), ("qwen3", "last", True)]


@pytest.mark.parametrize(("family", "pooling", "normalize"), CASES)
@pytest.mark.parametrize("all_seen", [False, True])
def test_no_operator_waits_for_the_device(tmp_path, capturing, family, pooling, normalize, all_seen):
    folder = make_bare_transformer(tmp_path, family)
    eager = TorchEncoder.from_folder(folder, pooling=pooling, normalize=normalize, max_tokens=48)
    encoder = TorchGraphEncoder(eager, graphs=gpu_engines.emulated(), batches=(1, 3))
    for bucket in encoder.buckets:
        inputs = Block(encoder.graphs, {"lengths": ((bucket.batch,), "int32"), **encoder.fields(bucket)})
        seen = bucket.tokens if all_seen else bucket.tokens // 2
        fill_rows(inputs.host, [np.ones(seen, np.int64)] * bucket.batch, encoder.pad_id)
        inputs.copy_in()
        x = torch.zeros((bucket.batch, encoder.dim))
        work = encoder.bind(bucket, inputs, x)
        with torch.inference_mode(), watched() as mode:
            work()
        assert mode.seen > 20
        assert np.isfinite(x.numpy()).all()


def test_what_the_model_does_while_capturing_changes_no_embedding(tmp_path, monkeypatch):
    eager = TorchEncoder.from_export(make_export(tmp_path), dtype="float32")
    ids = torch.randint(5, 40, (3, 16))
    for seen in (16, 9):
        mask = (torch.arange(16) < seen).long().expand(3, 16)
        with torch.inference_mode():
            outside = eager.states(ids, mask)
            monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            inside = eager.states(ids, mask)
            monkeypatch.undo()
        np.testing.assert_allclose(inside[:, :seen].numpy(), outside[:, :seen].numpy(), atol=1e-5)


def test_the_watch_sees_a_wait():
    with pytest.raises(AssertionError, match="waits for the device"), watched():
        bool(torch.ones(3).all())
    with pytest.raises(AssertionError, match="waits for the device"), watched():
        torch.ones(3)[torch.ones(3) > 0]
