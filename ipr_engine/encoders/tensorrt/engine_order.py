"""`EngineOrder` states the engine that is wanted; it is found in the cache, or built.

EngineOrder   the arguments of an encoder, checked, and the key that an engine file must state
build_plan    a model's ONNX graph to a serialized plan: converted, parsed, one optimisation profile per bucket, compiled
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine.cuda.buckets import Bucket, make_buckets
from ipr_engine.cuda.driver import Device
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.tensorrt import bindings
from ipr_engine.encoders.tensorrt.api import Api
from ipr_engine.encoders.tensorrt.engine_checks import INPUTS, check_network, embed_reference, make_sample
from ipr_engine.encoders.tensorrt.engine_file import (
    EngineFile,
    EngineKey,
    bucket_names,
    read_engine,
    write_engine,
    write_to_cache,
)
from ipr_engine.encoders.tensorrt.precision import PRECISIONS, convert_precision
from ipr_engine.encoders.transformer import TransformerEncoder
from ipr_engine.errors import BackendUnavailableError, EngineMismatchError, InvalidInputError

WORKSPACE_BYTES = 1 << 30  # of the GPU, for the builder's trials
_INLINE_BYTES = 1 << 30  # a larger graph keeps its weights beside it: protobuf ends at 2 GB
_LOG = logging.getLogger(__name__)


class EngineOrder:
    """An `EngineOrder` is an engine that is wanted: the arguments of `TensorRtEncoder.from_export`, checked.

    Attributes:
        export: the model. api: the TensorRT that builds or loads. buckets: the shapes, ascending.
        text: makes ids of prompts, and never embeds. key: the key that an engine file must state.
    """

    def __init__(
        self,
        export: Export,
        api: Api,
        device: Device | None,
        max_tokens: int | None,
        precision: str,
        batches: Sequence[int],
        workspace_bytes: int,
    ) -> None:
        if device is not None:
            api.require_gpu(device)
        if precision not in PRECISIONS:
            raise InvalidInputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        if type(workspace_bytes) is not int or workspace_bytes < 1:
            raise InvalidInputError(f"workspace_bytes: expected an int >= 1, got {workspace_bytes!r}")
        self.export, self.api, self._device = export, api, device
        self._onnx = export.file("onnx")
        limit = export.max_tokens if max_tokens is None else max_tokens
        self.text = TransformerEncoder(export.spec, max_tokens=limit, batch=1)
        self.buckets = make_buckets(self.text.max_tokens, batches)
        self.key = EngineKey(
            model="+".join(export.hashes[role] for role in ("onnx", "onnx_data") if role in export.hashes),
            tensorrt=str(api),
            gpu="any" if api.portable else str(device),
            precision=precision,
            buckets=bucket_names(self.buckets),
            pad_id=export.spec.pad_id,
            max_tokens=self.text.max_tokens,
            tokenizer=export.spec.tokenizer_sha256,
            workspace_bytes=workspace_bytes,
        )

    def find_or_build(self, cache: Path) -> tuple[EngineFile, Path, str]:
        """Return the engine, its file, and its origin: "cached", "built", or "rebuilt: " and why.

        A cached engine that is stale, foreign or damaged is replaced, and the log says so.
        """
        path = cache / self.key.file_name
        origin = "built"
        if path.exists():
            try:
                return read_engine(path, self.key), path, "cached"
            except EngineMismatchError as error:
                _LOG.warning("engine cache: %s", error)
                origin = f"rebuilt: {error}"
        engine = self._build(cache)
        write_engine(path, engine)
        return engine, path, origin

    def _build(self, cache: Path) -> EngineFile:
        if self._device is not None:
            self._device.activate()
        plan = build_plan(
            self.api,
            self._onnx,
            dim=self.export.dim,
            buckets=self.buckets,
            precision=self.key.precision,
            workspace_bytes=self.key.workspace_bytes,
            timing_cache=cache / f"{self.api.flavour}-{self.api.version}-{device_slug(self._device)}.timings",
        )
        sample = make_sample(self.text.ids, self.buckets)
        reference = embed_reference(self._onnx, sample)
        return EngineFile(key=self.key.document(), plan=plan, sample=sample, reference=reference)


def build_plan(
    api: Api,
    onnx: Path,
    *,
    dim: int,
    buckets: Sequence[Bucket],
    precision: str,
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: Path | None = None,
) -> bytes:
    """Compile a graph to a serialized plan.

    Args:
        onnx: float32, input_ids and attention_mask (batch, tokens) int64 or int32 -> embedding (batch, dim) float32.
        timing_cache: read if it fits this machine, and written; not for a portable plan, whose kernels are not timed.
    Raises:
        InvalidInputError: the graph cannot be read, converted or parsed, or its inputs and output are others.
        BackendUnavailableError: TensorRT cannot build here, or fails to.
    """
    builder = api.builder()
    with tempfile.TemporaryDirectory(prefix="ipr-engine-") as folder:
        network, parser = parse_network(api, builder, _convert(onnx, precision, Path(folder)), onnx)
        check_network(network, dim, onnx)
        config = configure(api, builder, buckets, workspace_bytes)
        timings = None if api.portable else _use_timing_cache(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
        del parser  # it owns the weights the network reads, and outlives the build
    if plan is None:
        raise BackendUnavailableError(f"{api} cannot build {onnx} in {precision}: {api.why()}")
    if timings is not None and timing_cache is not None:
        write_to_cache(timing_cache, bytes(timings.serialize()))
    return bytes(plan)


def parse_network(
    api: Api, builder: bindings.Builder, converted: Path, onnx: Path
) -> tuple[bindings.INetworkDefinition, bindings.OnnxParser]:
    """Return the network of a converted graph, strongly typed. The parser must live as long as the network is used."""
    # Asked for in TensorRT 10, the only mode (and ignored) in 11 and in RTX.
    network = builder.create_network(1 << int(api.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: bindings.OnnxParser = api.module.OnnxParser(network, api.logger)
    if not parser.parse_from_file(str(converted)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InvalidInputError(f"{onnx}: {api} cannot parse it: {errors or api.why()}")
    return network, parser


def configure(
    api: Api, builder: bindings.Builder, buckets: Sequence[Bucket], workspace_bytes: int
) -> bindings.IBuilderConfig:
    """Make the configuration: profiles in the order of the buckets, each of exactly one shape. Hardware compatibility stays off."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(api.module.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(api.module.BuilderFlag.TF32)  # float32 islands mean float32
    for i, bucket in enumerate(buckets):
        profile = builder.create_optimization_profile()
        for name in INPUTS:
            profile.set_shape(name, bucket.shape, bucket.shape, bucket.shape)
        if config.add_optimization_profile(profile) != i:
            raise BackendUnavailableError(f"{api} refuses the profile of bucket {bucket}: {api.why()}")
    return config


def _convert(onnx: Path, precision: str, folder: Path) -> Path:
    """Convert the graph to a precision, and write it to a file that the parser reads."""
    package = need("onnx", "building an engine", "tensorrt")
    try:
        model = package.load(str(onnx))
    except (OSError, ValueError, package.checker.ValidationError) as error:
        raise InvalidInputError(f"{onnx}: no ONNX graph: {error}") from error
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        raise InvalidInputError(f"{onnx}: no ONNX graph: {error}") from error
    converted: Any = convert_precision(model, precision)
    path = folder / "model.onnx"
    large = sum(len(tensor.raw_data) for tensor in converted.graph.initializer) > _INLINE_BYTES
    package.save_model(converted, str(path), save_as_external_data=large, location="weights")
    return path


def _use_timing_cache(config: bindings.IBuilderConfig, path: Path | None) -> bindings.ITimingCache | None:
    """Attach and return the cache of this machine; an empty one where the file is another machine's."""
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if not config.set_timing_cache(cache, False):  # False: a cache of another GPU or version is refused
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def device_slug(device: Device | None) -> str:
    """Return a device as a part of a file name; "any" for none."""
    return "".join(c if c.isalnum() else "-" for c in str(device)) if device is not None else "any"
