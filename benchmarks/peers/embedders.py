"""Other libraries embed prompts here, each on the files of one export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.encoders.cpu_runs import import_onnxruntime
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.openvino import import_openvino

from .subject import Embeddings, Subject


def torch_on(threads: int) -> Any:
    """Return the module torch, which runs on that many threads from now on."""
    torch = need("torch", "the peer", "bench")
    torch.set_num_threads(threads)
    return torch


def _library_tokenizer(export: Export) -> Callable[[list[str]], dict[str, NDArray[np.int64]]]:
    """Set up the `tokenizers` library as it is commonly used: padded to the longest of the batch, cut at the end."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(export.spec.tokenizer.decode())
    tokenizer.enable_padding(pad_id=export.spec.pad_id)
    tokenizer.enable_truncation(export.max_tokens)

    def tokenize(prompts: list[str]) -> dict[str, NDArray[np.int64]]:
        rows = tokenizer.encode_batch(prompts)
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64)}

    return tokenize


def _peer(name: str, tokenize: Callable[[list[str]], Any], embed: Callable[[Any], Embeddings]) -> Subject:
    return Subject(name, False, tokenize, embed, lambda prompts: embed(tokenize(prompts)))


def plain_onnx(export: Export, threads: int) -> Subject:
    """Open a session with default options but for its threads, fed from numpy: how most code uses ONNX Runtime."""
    onnxruntime = import_onnxruntime("the peer", "onnx")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(export.file("onnx")), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return _peer("plain ONNX Runtime", _library_tokenizer(export), lambda feed: session.run(None, feed)[0])


def openvino(export: Export, threads: int) -> Subject:
    library = import_openvino("the peer")

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = library.Core().compile_model(str(export.file("onnx")), "CPU", settings)
    request = compiled.create_infer_request()

    def embed(feed: dict[str, NDArray[np.int64]]) -> Embeddings:
        return np.array(request.infer(feed)[0])

    return _peer("OpenVINO", _library_tokenizer(export), embed)


def sentence_transformers(model: Path, export: Export, threads: int, device: str) -> Subject:
    torch = torch_on(threads)
    library = need("sentence_transformers", "the peer", "peers")

    from ipr_engine.encoders.torch import quiet

    with quiet():
        loaded: Any = library.SentenceTransformer(str(model), device=device)
    loaded.max_seq_length = export.max_tokens
    preprocess = getattr(loaded, "preprocess", None) or loaded.tokenize

    def embed(features: Any) -> Embeddings:
        with torch.inference_mode():
            moved = {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
            found: Embeddings = loaded(moved)["sentence_embedding"].float().cpu().numpy()
        return found

    def encode(prompts: list[str]) -> Embeddings:
        found: Embeddings = loaded.encode(prompts, batch_size=64, show_progress_bar=False)
        return found

    return Subject("sentence-transformers", False, preprocess, embed, encode)


def compiled_torch(model: Path, export: Export, threads: int, device: str) -> Subject:
    """Open torch.compile of the model with its pooling, shapes dynamic; it compiles on the first call."""
    torch = torch_on(threads)
    from ipr_engine.encoders.torch import load_model, pool

    loaded = load_model(model, "float32").to(device)
    spec = export.spec

    def forward(input_ids: Any, attention_mask: Any) -> Any:
        states = loaded(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(states, attention_mask, spec.pooling, spec.normalize)

    compiled = torch.compile(forward, dynamic=True)

    def embed(feed: dict[str, NDArray[np.int64]]) -> Embeddings:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(device) for name, array in feed.items()}
            found: Embeddings = compiled(**tensors).cpu().numpy()
        return found

    return _peer("torch.compile", _library_tokenizer(export), embed)
