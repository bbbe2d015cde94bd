"""The openvino tier runs an exported transformer by OpenVINO on the CPU, in float32 or with bfloat16 products, without torch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need, pip_extra
from ipr_engine.encoders.cpu_runs import GROUP_TOKENS, checked_threads, first_line
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export, read_export
from ipr_engine.encoders.transformer import TransformerEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, InvalidInputError

MIXED = "bfloat16-mixed"  # products and attention in bfloat16, sums of layers, norms and pooling in float32
PRECISIONS = {"float32": "f32", MIXED: "bf16"}  # dtype -> OpenVINO's name of it
GATES = {"float32": 0.99999, MIXED: 0.999}  # dtype -> the least cosine with the float32 model (docs/encoders.md)
COSINES = {"float32": "openvino", MIXED: "openvino_bfloat16_mixed"}  # dtype -> where an export keeps what was measured
# OpenVINO keeps what it made for a shape that it has run, in some three entries; a shape takes up to 0.8 MB. Its default of 5,000
# entries had no end in reach after 1,000 shapes of MiniLM, with 1,000 of them memory grew by 280 MB and no more (docs/encoders.md).
KEPT_ENTRIES = 1000
_PURPOSE = "the openvino encoder"
_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


class OpenVinoEncoder(TransformerEncoder):
    """An `OpenVinoEncoder` runs an export by OpenVINO on the CPU; `from_export` builds it.

    Rows of one length run together, 1, 2, 4, ... of them, and no row is ever padded. Alone or in any batch, a row's two values
    differ by less than 1e-5 * ||x||; on the CPU of docs/encoders.md by nothing, in both dtypes.

    Attributes:
        dtype: "float32" or "bfloat16-mixed"; the second has an identity of its own.
        threads: of OpenVINO. bytes_planned: of the buffers the encoder itself keeps; OpenVINO's own come on top.
    """

    tier = "openvino"

    def __init__(
        self,
        export: Export,
        *,
        dtype: str = "float32",
        threads: int | None = None,
        max_tokens: int | None = None,
        batch: int = 32,
    ) -> None:
        if dtype not in PRECISIONS:
            raise InvalidInputError(f"dtype: expected one of {', '.join(PRECISIONS)}, got {dtype!r}")
        self.dtype, self.threads, self.dim = dtype, checked_threads(threads), export.dim
        super().__init__(
            export.spec,
            max_tokens=export.max_tokens if max_tokens is None else max_tokens,
            batch=batch,
            dtype=export.arithmetic(None if dtype == "float32" else dtype),
        )
        _require_gate(export, dtype)
        path = export.file("onnx")
        compiled = compile_graph(path, dtype, self.threads)
        self._tensor = import_openvino().Tensor
        self._masked = _check_signature(compiled, path, self.dim)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._plan()

    @classmethod
    def from_export(
        cls,
        folder: str | Path,
        *,
        dtype: str = "float32",
        threads: int | None = None,
        max_tokens: int | None = None,
        batch: int = 32,
    ) -> OpenVinoEncoder:
        """Verify an export's files, compile its graph, allocate and warm up.

        Args:
            folder: a folder of `ipr export-encoder`.
            dtype: "float32" or "bfloat16-mixed".
            threads: None is one a physical core that this process may use.
            max_tokens: None is the export's own; more than the special tokens and within the model's positions.
            batch: the most prompts of one run, >= 1.
        Raises:
            InvalidInputError: an argument is outside of the above.
            BackendUnavailableError: openvino, or bfloat16 in this processor, is missing here, or memory for the largest run.
            BundleError: what `read_export` raises, or a graph that OpenVINO cannot read.
        Example:
            >>> encoder = OpenVinoEncoder.from_export(folder)
            >>> encoder.encode(["Why?", ""]).billed_tokens.tolist()
            [2, 0]
        """
        return cls(read_export(folder), dtype=dtype, threads=threads, max_tokens=max_tokens, batch=batch)

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> OpenVinoEncoder:
        """Load an export as the registry asks for it; of the options, threads apply."""
        if options.device != "cpu":
            raise InvalidInputError(f"device: the openvino tier runs on 'cpu', got {options.device!r}")
        return cls(export, max_tokens=max_tokens, dtype="float32" if dtype is None else dtype, threads=options.threads)

    @property
    def summary(self) -> str:
        """Tier, dimensions, precision, number of threads, tokenizer."""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return self.told(f"openvino {self.dim}-d {self.dtype} on {threads}, {self.tokenizer.kind} tokenizer")

    def _plan(self) -> None:
        """Allocate for the largest run, and run it once: missing memory is an error now, which names the run."""
        tokens, rows = self.max_tokens, self._most_rows(self.max_tokens)
        elements = max(tokens, min(self.batch * tokens, GROUP_TOKENS))
        try:
            self._input = np.zeros(elements, dtype=np.int64)
            self._seen = np.ones(elements if self._masked else 0, dtype=np.int64)
            self.run_planned(rows, tokens)
        except Exception as error:  # OpenVINO's errors have no base of their own
            raise BackendUnavailableError(
                f"openvino: no run of {rows} rows x {tokens} tokens, the largest planned: {first_line(error)}; free memory, or "
                "open the encoder with a smaller batch or max_tokens"
            ) from error
        self.bytes_planned = self._input.nbytes + self._seen.nbytes

    def _most_rows(self, length: int) -> int:
        return max(1, min(self.batch, GROUP_TOKENS // length))

    def _groups(self, rows: list[int], lengths: list[int]) -> list[list[int]]:
        """Return the rows that run together: of one length, and a power of two of them, so that shapes are few."""
        groups = []
        for length, own in groupby(zip(rows, lengths, strict=True), key=lambda pair: pair[1]):
            mates = [row for row, _ in own]
            for count in _powers_of_two(len(mates), self._most_rows(length)):
                groups.append(mates[:count])
                mates = mates[count:]
        return groups

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of the rows of one group, in planned buffers."""
        rows, tokens = len(ids), len(ids[0])
        with self._lock:
            filled = self._input[: rows * tokens].reshape(rows, tokens)  # a view
            for row, own in enumerate(ids):
                filled[row] = own
            try:
                return self.run_planned(rows, tokens)
            except Exception as error:  # as above
                raise BackendUnavailableError(
                    f"openvino: a run of {rows} rows x {tokens} tokens failed: {first_line(error)}"
                ) from error

    def run_planned(self, rows: int, tokens: int) -> NDArray[np.float32]:
        """Run the graph once over the planned buffers; return a copy of its output, (rows, dim)."""
        request, shape = self._request, (rows, tokens)
        feed = {"input_ids": self._input[: rows * tokens].reshape(shape)}
        if self._masked:
            feed["attention_mask"] = self._seen[: rows * tokens].reshape(shape)
        for name, array in feed.items():
            request.set_tensor(name, self._tensor(array, shared_memory=True))
        request.infer()
        output: NDArray[np.float32] = request.get_tensor("embedding").data.copy()
        return output

    def __repr__(self) -> str:
        return (
            f"OpenVinoEncoder(dim={self.dim}, pooling={self.pooling!r}, normalize={self.normalize}, "
            f"max_tokens={self.max_tokens}, tokenizer={self.tokenizer.kind!r}, dtype={self.dtype!r}, threads={self.threads}, "
            f"identity={self.identity[:12]}...)"
        )


def import_openvino(purpose: str = _PURPOSE) -> Any:
    """Import OpenVINO without its telemetry.

    As it comes, `import openvino` forks this process to tell Google Analytics, and writes an id into the user's home. Without the
    package that does so OpenVINO takes a stub.

    Raises:
        BackendUnavailableError: it is missing or damaged; says what to install.
    """
    with _importing:
        telemetry = {name: module for name, module in sys.modules.items() if name == _TELEMETRY}
        without = "openvino" not in sys.modules
        if without:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python is told that a module is not there
        try:
            found = need("openvino", purpose, "openvino")
        except BackendUnavailableError:
            raise
        except Exception as error:  # whatever a damaged installation raises
            raise BackendUnavailableError(f"{purpose}: openvino cannot be imported: {first_line(error)}") from error
        finally:
            if without:
                del sys.modules[_TELEMETRY]
                sys.modules.update(telemetry)
    if not hasattr(found, "Core"):  # a folder of that name, on Python's path, is a package too
        raise BackendUnavailableError(
            f"{purpose} needs openvino, and what is here by that name has no Core ({found!r}): {pip_extra('openvino')}"
        )
    return found


def _powers_of_two(rows: int, most: int) -> Iterator[int]:
    """Yield powers of two that add up to `rows`, each the largest that is at most `most` and what is left."""
    while rows:
        count = 1 << (min(rows, most).bit_length() - 1)
        yield count
        rows -= count


def compile_graph(path: Path, dtype: str, threads: int) -> Any:
    """Read a graph and compile it for this processor, in exactly the precision that was asked for.

    Raises:
        BackendUnavailableError: openvino is missing here, or cannot compile it, or not in this precision.
        BundleFormatError: openvino cannot read it.
    """
    openvino = import_openvino()
    try:
        core = openvino.Core()
    except Exception as error:  # OpenVINO's errors have no base of their own
        raise BackendUnavailableError(f"openvino: it does not start: {first_line(error)}") from error
    if dtype == MIXED and not has_bfloat16(core):
        raise BackendUnavailableError(
            f"dtype: {dtype!r} was asked for, and this processor has no bfloat16 that OpenVINO uses (it offers "
            f"{', '.join(_capabilities(core))}); take a processor that has, or heads fitted on float32"
        )
    # a file that someone shortens later must not end the process
    core.set_property({"ENABLE_MMAP": False})
    try:
        model = core.read_model(str(path))
    except Exception as error:  # as above
        raise BundleFormatError(f"{path}: OpenVINO cannot open it: {first_line(error)}") from error
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],  # its default is bfloat16 where the processor is fast at it
        "ENABLE_CPU_PINNING": False,  # pinned, every process takes the same cores: two of them had half the speed each
        "CPU_RUNTIME_CACHE_CAPACITY": KEPT_ENTRIES,
    }
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # as above
        raise BackendUnavailableError(f"openvino: it cannot compile {path}: {first_line(error)}") from error
    got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if got != PRECISIONS[dtype]:
        raise BackendUnavailableError(
            f"dtype: {dtype!r} was asked for, and OpenVINO computes in {got} on this processor"
        )
    return compiled


def has_bfloat16(core: Any) -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in _capabilities(core)


def _capabilities(core: Any) -> list[str]:
    found: list[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def _require_gate(export: Export, dtype: str) -> None:
    """Refuse an export whose graph did not compute what the model does when OpenVINO ran it at the export."""
    measured = export.provenance.get("smallest_cosine")
    cosine = measured.get(COSINES[dtype]) if isinstance(measured, dict) else None
    if isinstance(cosine, (int, float)) and cosine < GATES[dtype]:
        raise BackendUnavailableError(
            f"openvino: when {export.name!r} was exported its embeddings by OpenVINO in {dtype} differed from the model's: smallest "
            f"cosine {cosine}, expected at least {GATES[dtype]}; take another tier"
        )


def _check_signature(compiled: Any, path: Path, dim: int) -> bool:
    """Return whether the graph takes a mask; BundleFormatError for a graph of another form or another dim."""
    # a tensor may have several names
    inputs = {name: given.element_type.get_type_name() for given in compiled.inputs for name in given.names}
    outputs = {name: made for made in compiled.outputs for name in made.names}
    found = {name: f"{made.element_type.get_type_name()} {made.partial_shape}" for name, made in outputs.items()}
    fitting = inputs in ({"input_ids": "i64"}, {"input_ids": "i64", "attention_mask": "i64"})
    if not fitting or found.get("embedding") not in (f"f32 [?,{dim}]", "f32 [?,?]"):  # ?: a size left open
        raise BundleFormatError(
            f"{path}: expected input_ids and maybe attention_mask (i64) -> embedding (batch, {dim}) f32, got {inputs} -> {found}"
        )
    return "attention_mask" in inputs
