"""The tensorrt tier (docs/tensorrt.md): `TensorRtEncoder.from_export` for an engine on this machine's GPU, `prepare_engine` to build
one ahead of time, with TensorRT-RTX on a machine without a GPU."""

from ipr_engine.encoders.tensorrt.encoder import TensorRtEncoder, prepare_engine

__all__ = ["TensorRtEncoder", "prepare_engine"]
