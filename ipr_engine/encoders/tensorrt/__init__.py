"""The tensorrt tier runs transformers through TensorRT (docs/tensorrt.md).

`TensorRtEncoder.from_export` finds or builds an engine for this machine's GPU. `prepare_engine` builds one ahead of time, with
TensorRT-RTX on a machine without a GPU.
"""

from ipr_engine.encoders.tensorrt.encoder import TensorRtEncoder, prepare_engine

__all__ = ["TensorRtEncoder", "prepare_engine"]
