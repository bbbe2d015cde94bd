"""The onnx tier runs an exported transformer by ONNX Runtime, on the CPU or by its CUDA provider, without torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.encoders.cpu_runs import GROUP_TOKENS, checked_threads, first_line, import_onnxruntime
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export, read_export
from ipr_engine.encoders.transformer import TransformerEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, InvalidInputError

PRECISIONS = ("float32", "int8")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # ids a row is filled up to on a GPU; then steps of 256
_PURPOSE = "the onnx encoder"


class OnnxEncoder(TransformerEncoder):
    """An `OnnxEncoder` runs an export by ONNX Runtime; `from_export` builds it.

    On the CPU rows of one length run together and no row is ever padded; on a GPU rows are filled up to their bucket.
    Alone or in any batch, a row's two values differ by less than 1e-5 * ||x||; on the CPU of docs/encoders.md, for an
    export that has model.cpu.onnx, by nothing. In int8 every scale of an input comes from its own row.

    Attributes:
        precision: "float32" or "int8"; the int8 model has an identity of its own.
        provider: "cpu" or "cuda". threads: of ONNX Runtime on the CPU.
        bytes_planned: of the buffers the encoder itself keeps; ONNX Runtime's arena comes on top.
    """

    tier = "onnx"

    def __init__(
        self,
        export: Export,
        *,
        precision: str = "float32",
        provider: str = "cpu",
        threads: int | None = None,
        max_tokens: int | None = None,
        batch: int = 32,
        asked: str | None = None,
    ) -> None:
        """Open the graph; the arguments are those of `from_export`.

        asked: what an error says asked for the provider; None is the argument itself.
        """
        if precision not in PRECISIONS:
            raise InvalidInputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        if provider not in PROVIDERS:
            raise InvalidInputError(f"provider: expected one of {', '.join(PROVIDERS)}, got {provider!r}")
        if precision == "int8" and provider != "cpu":
            raise InvalidInputError(f"precision: the int8 model is made for the CPU, got provider {provider!r}")
        threads = checked_threads(threads)
        role = _role(export, precision, provider)
        super().__init__(
            export.spec,
            max_tokens=export.max_tokens if max_tokens is None else max_tokens,
            batch=batch,
            dtype=export.arithmetic("int8" if precision == "int8" else None),
        )
        self.precision, self.provider, self.threads = precision, provider, threads
        self.dim = export.dim
        self._session = _open_session(export.file(role), provider, self.threads, asked or f"provider: {provider!r}")
        self._masked = _check_signature(self._session, export.file(role), self.dim)
        self._lock = threading.Lock()
        self._plan()

    @classmethod
    def from_export(
        cls,
        folder: str | Path,
        *,
        precision: str = "float32",
        provider: str = "cpu",
        threads: int | None = None,
        max_tokens: int | None = None,
        batch: int = 32,
    ) -> OnnxEncoder:
        """Verify an export's files, open its graph, allocate and warm up.

        Args:
            folder: a folder of `ipr export-encoder`.
            precision: "float32", or "int8" where the export holds it.
            provider: "cpu", or "cuda" (the package onnxruntime-gpu).
            threads: None is one a physical core that this process may use.
            max_tokens: None is the export's own; more than the special tokens and within the model's positions.
            batch: the most prompts of one run, >= 1.
        Raises:
            InvalidInputError: an argument is outside of the above.
            BackendUnavailableError: onnxruntime or the provider is missing here, or memory for a bucket.
            BundleError: what `read_export` raises, or a graph that ONNX Runtime cannot read.
        Example:
            >>> encoder = OnnxEncoder.from_export(folder)
            >>> encoder.encode(["Why?", ""]).billed_tokens.tolist()
            [2, 0]
        """
        return cls(
            read_export(folder),
            precision=precision,
            provider=provider,
            threads=threads,
            max_tokens=max_tokens,
            batch=batch,
        )

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> OnnxEncoder:
        """Load an export as the registry asks for it; of the options, device and threads apply."""
        if options.device not in ("cpu", "cuda", "cuda:0"):
            raise InvalidInputError(f"device: the onnx tier runs on 'cpu' or 'cuda:0', got {options.device!r}")
        if dtype == "int8" and options.device != "cpu":
            raise InvalidInputError(
                f"device: the heads read the int8 model of {export.name!r}, which is made for the CPU; expected 'cpu', got "
                f"{options.device!r}"
            )
        return cls(
            export,
            max_tokens=max_tokens,
            precision="int8" if dtype == "int8" else "float32",
            threads=options.threads,
            provider="cpu" if options.device == "cpu" else "cuda",
            asked=f"device: {options.device!r} for tier 'onnx'",
        )

    @property
    def summary(self) -> str:
        """Tier, dimensions, precision, provider or number of threads, tokenizer."""
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.provider == "cpu" else self.provider
        return self.told(f"onnx {self.dim}-d {self.precision} on {where}, {self.tokenizer.kind} tokenizer")

    def _plan(self) -> None:
        """Allocate for the largest run, and run it once: missing memory is an error now, which names the bucket."""
        if self.provider == "cpu":
            tokens, rows = self.max_tokens, max(1, min(self.batch, GROUP_TOKENS // self.max_tokens))
            elements = max(self.max_tokens, min(self.batch * self.max_tokens, GROUP_TOKENS))
        else:
            tokens, rows = self.padded_length(self.max_tokens), self.batch
            elements = rows * tokens
        try:
            self._input = np.zeros(elements, dtype=np.int64)
            self._seen = np.ones(elements if self._masked else 0, dtype=np.int64)
            self._output = np.zeros((self.batch, self.dim), dtype=np.float32)
            self._binding = self._session.io_binding()
            self.run_planned(rows, tokens)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise BackendUnavailableError(
                f"onnx: no run of {rows} rows x {tokens} tokens on {self.provider!r}, the largest bucket planned: "
                f"{first_line(error)}; free memory, or open the encoder with a smaller batch or max_tokens"
            ) from error
        self.bytes_planned = self._input.nbytes + self._seen.nbytes + self._output.nbytes

    def _groups(self, rows: list[int], lengths: list[int]) -> list[list[int]]:
        """Return the rows that run together, at most `batch`: on a CPU of one length and GROUP_TOKENS ids, on a GPU of one bucket."""
        groups: list[list[int]] = []
        size = 0
        for row, length in zip(rows, lengths, strict=True):
            bucket = self.padded_length(length)
            room = self.batch if self.provider != "cpu" else max(1, min(self.batch, GROUP_TOKENS // bucket))
            if bucket != size or len(groups[-1]) >= room:
                groups.append([])
            groups[-1].append(row)
            size = bucket
        return groups

    def padded_length(self, length: int) -> int:
        """Return the number of ids that a row of `length` ids is filled up to."""
        if self.provider == "cpu":
            return length
        bucket = next((size for size in BUCKETS if size >= length), -(-length // 256) * 256)
        return bucket if self.spec.positions is None else min(bucket, self.spec.positions)

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of the rows of one group, in planned buffers."""
        rows, tokens = len(ids), self.padded_length(max(map(len, ids)))
        with self._lock:
            filled = self._input[: rows * tokens].reshape(rows, tokens)  # a view
            if self._masked:
                self._seen[: rows * tokens] = 1
            for row, own in enumerate(ids):
                filled[row, : len(own)] = own
                if len(own) < tokens:
                    filled[row, len(own) :] = self.spec.pad_id
                    self._seen[row * tokens + len(own) : (row + 1) * tokens] = 0
            try:
                self.run_planned(rows, tokens)
            except Exception as error:  # as above; a GPU that went away, say
                raise BackendUnavailableError(
                    f"onnx: a run of {rows} rows x {tokens} tokens on {self.provider!r} failed: {first_line(error)}"
                ) from error
            return self._output[:rows].copy()

    def run_planned(self, rows: int, tokens: int) -> None:
        """Run the graph once over the planned buffers; on a GPU ONNX Runtime copies them there and back."""
        binding, shape = self._binding, (rows, tokens)
        binding.bind_input("input_ids", "cpu", 0, np.int64, shape, self._input.ctypes.data)
        if self._masked:
            binding.bind_input("attention_mask", "cpu", 0, np.int64, shape, self._seen.ctypes.data)
        binding.bind_output("embedding", "cpu", 0, np.float32, (rows, self.dim), self._output.ctypes.data)
        self._session.run_with_iobinding(binding)

    def __repr__(self) -> str:
        return (
            f"OnnxEncoder(dim={self.dim}, pooling={self.pooling!r}, normalize={self.normalize}, max_tokens={self.max_tokens}, "
            f"tokenizer={self.tokenizer.kind!r}, precision={self.precision!r}, provider={self.provider!r}, "
            f"threads={self.threads}, identity={self.identity[:12]}...)"
        )


def _role(export: Export, precision: str, provider: str) -> str:
    """Return the file of an export that runs here; the CPU's own graph where there is one."""
    if precision == "int8":
        return "onnx_int8"
    return "onnx_cpu" if provider == "cpu" and "onnx_cpu" in export.files else "onnx"


def _open_session(path: Path, provider: str, threads: int, asked: str) -> Any:
    """Open a graph on exactly the provider that was asked for; `asked` says how, for an error."""
    runtime = import_onnxruntime(_PURPOSE, "onnx")
    name = PROVIDERS[provider]
    if name not in runtime.get_available_providers():
        raise BackendUnavailableError(
            f"{asked} was asked for and this onnxruntime has only {', '.join(runtime.get_available_providers())}; install "
            "onnxruntime-gpu, take another tier, or pass 'cpu'"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # it keeps a plan for every shape seen, and lengths are many
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=[name])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise BundleFormatError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from error
    if session.get_providers()[0] != name:  # it goes on with the CPU where a CUDA library is missing
        raise BackendUnavailableError(
            f"{asked} was asked for and could not start here (is there a GPU, are its libraries installed?); "
            f"ONNX Runtime offers {', '.join(session.get_providers())}"
        )
    session.disable_fallback()  # a failing run raises, and does not start again on the CPU
    return session


def _check_signature(session: Any, path: Path, dim: int) -> bool:
    """Return whether the graph takes a mask; BundleFormatError for a graph of another form or another dim."""
    inputs = {given.name: given.type for given in session.get_inputs()}
    outputs = {made.name: (made.type, made.shape[-1:]) for made in session.get_outputs()}
    fitting = inputs in (
        {"input_ids": "tensor(int64)"},
        {"input_ids": "tensor(int64)", "attention_mask": "tensor(int64)"},
    )
    given, shape = outputs.get("embedding", (None, []))
    if not fitting or given != "tensor(float)" or (shape and isinstance(shape[0], int) and shape[0] != dim):
        raise BundleFormatError(
            f"{path}: expected input_ids and maybe attention_mask (int64) -> embedding (batch, {dim}) float32, "
            f"got {inputs} -> {outputs}"
        )
    return "attention_mask" in inputs
