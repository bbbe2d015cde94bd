"""A toy tier: an export run by ONNX Runtime, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.onnx import OnnxEncoder


class PlainOnnxEncoder(OnnxEncoder):
    """The onnx tier without batches."""

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed the prompts, each alone."""
        rows = [super(PlainOnnxEncoder, self).encode([prompt]) for prompt in prompts]
        whole = super().encode(prompts)
        return replace(whole, x=np.concatenate([row.x for row in rows]) if rows else whole.x)
