"""A tier of another file and a row in the table."""

import numpy as np
import pytest

from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.registry import open_export
from tests.support import skips


def test_the_tier_opens_by_its_name_and_embeds_as_the_onnx_tier_does(rng, tmp_path):
    pytest.importorskip("onnxruntime", reason=skips.ONNX)
    pytest.importorskip("onnx", reason=skips.EXPORT)
    from tests.support.onnx_graphs import make_export

    export = make_export(tmp_path / "export", rng)
    plain, onnx = (open_export(export.folder, LoadOptions(tier=tier)) for tier in ("plain_onnx", "onnx"))
    assert type(plain).__name__ == "PlainOnnxEncoder"
    assert np.allclose(plain.encode(["why", "how so"]).x, onnx.encode(["why", "how so"]).x, atol=1e-5)
