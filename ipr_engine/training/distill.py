"""`distill` turns a sentence transformer into a static token table, the first encoder tier (docs/decide.md).

model2vec runs every vocabulary token through the model once, reduces by PCA and weighs by SIF. What is added here:
int8 with one scale per row, a folder that names no path, and the same bytes from the same input.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from ipr_engine._extras import need
from ipr_engine._files import writable_folder
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import one_thread

DTYPES = ("float32", "float16", "int8")
PROBES = 2000

_log = logging.getLogger(__name__)


def distill(
    model: str | Path, out_folder: str | Path, *, dim: int = 256, sif: float = 1e-4, dtype: str = "int8", seed: int = 0
) -> Path:
    """Distil `model` into a model2vec folder: model.safetensors, tokenizer.json, config.json, and distill.json.

    Any model2vec version loads the folder. With int8, row r of the table is `weights[r] * embeddings[r]`: SIF makes
    the norms of the rows differ by orders of magnitude, so each row has its own scale, in model2vec's own `weights`.

    Args:
        model: a sentence-transformers or transformers folder, or a hub id. Nothing is fetched for a folder.
        out_folder: made if absent; files of these names are replaced.
        dim: dimensions kept by PCA, at most the model's.
        sif: smooth inverse frequency coefficient, in (0, 1).
        dtype: "float32", "float16" or "int8".
        seed: of the probe sentences on which distill.json compares the table with its float32 original.

    Returns:
        out_folder. Its distill.json holds the settings, the sha256 of the source weights and the cosine found.

    Raises:
        BackendUnavailableError: a package of the extra `[train]` is missing.
        InvalidInputError: an argument is out of range, or `model` is a path that does not exist, or no sentence encoder.
    """
    if dtype not in DTYPES:
        raise InvalidInputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if dim < 1 or not 0 < sif < 1:
        raise InvalidInputError(f"dim, sif: expected dim >= 1 and 0 < sif < 1, got {dim} and {sif}")
    writable_folder(out_folder, "out_folder")
    source = Path(model)
    if not source.exists() and (source.is_absolute() or str(model).startswith(".")):
        raise InvalidInputError(f"model: expected a folder or a hub id, got {model}, which does not exist")
    library = need("model2vec.distill", "distilling a token table")
    torch = need("torch", "distilling a token table")

    threads = torch.get_num_threads()
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    try:
        with one_thread():  # the one long part; model2vec shows its progress
            static = library.distill(str(model), device="cpu", pca_dims=dim, sif_coefficient=sif, quantize_to="float32")
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidInputError(f"model: {model} cannot be read as a sentence encoder: {reason}") from error
    finally:
        torch.set_num_threads(threads)

    table = np.ascontiguousarray(static.embedding, dtype=np.float32)  # (vocabulary, dim)
    tensors = pack_table(table, dtype)
    cosine = probe_cosine(table, unpack_table(tensors), seed)
    _log.info("cosine of %s to float32 over %d probes: mean %.6f, least %.6f", dtype, PROBES, *cosine)

    tokenizer = json.loads(static.tokenizer.to_str())
    tokenizer.update(truncation=None, padding=None)  # the encoder cuts by its own max_tokens and never pads
    name = source.name if source.exists() else str(model)
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": name,
        "apply_pca": dim,
        "sif_coefficient": sif,
        "hidden_dim": int(table.shape[1]),
        "seq_length": 1000000,  # model2vec's own: a table has no limit
        "normalize": True,
        "pooling": "mean",
        "embedding_dtype": dtype,
    }
    record = {
        "source": name,
        "source_weights_sha256": _weights_sha256(source),
        "dim": int(table.shape[1]),
        "sif": sif,
        "dtype": dtype,
        "seed": seed,
        "rows": len(table),
        "cosine_to_float32": {"probes": PROBES, "mean": round(cosine[0], 6), "least": round(cosine[1], 6)},
        "versions": {package: version(package) for package in ("model2vec", "torch", "transformers")},
    }
    folder = Path(out_folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "distill.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder


def pack_table(table: npt.NDArray[np.float32], dtype: str) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a (rows, dim) table: `embeddings`, and for int8 also `weights` (rows,) float32."""
    if dtype != "int8":
        return {"embeddings": table.astype(dtype)}
    weights = (np.abs(table).max(axis=1) / np.float32(127)).astype(np.float32)
    weights[weights == 0] = 1.0  # a zero row: any scale will do
    return {"embeddings": np.rint(table / weights[:, None]).astype(np.int8), "weights": weights}


def unpack_table(tensors: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Return the (rows, dim) float32 table that the tensors of `pack_table` stand for."""
    table = tensors["embeddings"].astype(np.float32)
    return table * tensors["weights"][:, None] if "weights" in tensors else table


def probe_cosine(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], seed: int, probes: int = PROBES
) -> tuple[float, float]:
    """Return the mean and least cosine between the two tables' embeddings of random sentences.

    A sentence is 8 to 64 tokens, drawn so that a token's frequency falls as one over its rank, like words do.
    """
    random = np.random.default_rng(seed)
    cosines = []
    for length in random.integers(8, 65, size=probes):
        # exp of a uniform draw has a density of one over the rank: Zipf's law.
        rows = np.floor(np.exp(random.uniform(0.0, np.log(len(one)), size=length))).astype(np.int64) % len(one)
        a, b = one[rows].astype(np.float64).mean(axis=0), other[rows].astype(np.float64).mean(axis=0)
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(np.mean(cosines)), float(np.min(cosines))


def _weights_sha256(source: Path) -> str | None:
    """Hash the source's one weights file; None for a hub id or a model in several files."""
    files = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if len(files) == 1 else None
