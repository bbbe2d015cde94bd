"""The torch tier runs a frozen transformer eagerly by PyTorch, on the CPU or on any device torch has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export, read_export
from ipr_engine.encoders.tokenizer import LibraryTokenizer, WordPieceTokenizer, read_tokenizer
from ipr_engine.encoders.transformer import TransformerEncoder, padded
from ipr_engine.encoders.transformer_files import (
    TransformerFolder,
    TransformerSpec,
    read_transformer_folder,
    special_ids,
)
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, InvalidInputError

DTYPES = ("float32", "float16", "bfloat16")
PURPOSE = "the torch encoder"  # the words of an error where torch is missing


class TorchEncoder(TransformerEncoder):
    """A `TorchEncoder` runs a transformer by PyTorch as it stands; `from_folder` and `from_export` build it.

    Pooling and normalisation are computed in float32. Unlike the static tier's, a row depends on its batch mates, in its last
    bits: they decide the padding and with it the order of sums. Alone or in any batch, in float32 its two values differ by
    less than 1e-5 * ||x||.

    Attributes:
        model: the transformer, a torch module.
        device, dtype: the place and type of the transformer's arithmetic. The identity names neither but bfloat16, whose
            embeddings are further from float32's than a cosine of 0.9999.
    """

    tier = "torch"

    def __init__(
        self,
        model: Any,
        spec: TransformerSpec,
        tokenizer: WordPieceTokenizer | LibraryTokenizer,
        *,
        max_tokens: int,
        batch: int,
        device: str,
        dtype: str,
    ) -> None:
        named = dtype if dtype == "bfloat16" else None
        super().__init__(spec, max_tokens=max_tokens, batch=batch, dtype=named, tokenizer=tokenizer)
        self.model = model.to(device)
        self.device, self.dtype = device, dtype
        self.dim = self._embed([np.zeros(1, dtype=np.int64)]).shape[1]  # by a run: configs name it differently

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_tokens: int = 256,
        batch: int = 32,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> TorchEncoder:
        """Load a sentence-transformers folder, or a bare transformers folder with `pooling` given. Nothing is downloaded.

        Args:
            folder: config.json, tokenizer.json, model.safetensors (or its shards); modules.json and 1_Pooling/ if it has them.
            pooling: "mean", "cls" or "last"; None where modules.json tells it.
            normalize: None takes modules.json's, and is false for a bare folder.
            max_tokens: more than the special tokens and within the model's positions.
            batch: prompts that pass through the transformer together, >= 1; they are taken in the order of their length.
            device: a device of torch: "cpu", "cuda", "cuda:1", "mps".
            dtype: "float32", "float16" or "bfloat16".
        Raises:
            InvalidInputError: an argument is outside of the above, or the folder's pooling cannot be told.
            BackendUnavailableError: torch, transformers or the device is missing here.
            BundleNotFoundError, BundleFormatError: a file is missing or not what it should be; pickled weights are never read.
        Example:
            >>> encoder = TorchEncoder.from_folder(folder)
            >>> encoder.encode(["Why?", ""]).billed_tokens.tolist()
            [2, 0]
        """
        _check_dtype(dtype)
        source = read_transformer_folder(folder, pooling=pooling, normalize=normalize)
        _check_device(device)
        tokenizer = read_tokenizer(source.tokenizer)
        before, after = special_ids(source.tokenizer, str(source.path / "tokenizer.json"))
        model = load_model(source.path, dtype)
        check_fit(model, tokenizer)
        spec = spec_of(source, model, before, after)
        return cls(model, spec, tokenizer, max_tokens=max_tokens, batch=batch, device=device, dtype=dtype)

    @classmethod
    def from_export(
        cls,
        folder: str | Path,
        *,
        max_tokens: int | None = None,
        batch: int = 32,
        device: str = "cpu",
        dtype: str | None = None,
    ) -> TorchEncoder:
        """Load the float16 weights of an export (encoders/export/).

        Args:
            max_tokens: None is the export's own.
            dtype: None is float16 on a GPU and float32 (of the float16 weights) on the CPU.
        Raises:
            as `from_folder`, and what `read_export` raises.
        """
        _check_dtype(dtype)
        export = read_export(folder)
        path = export.file("weights").parent
        _check_device(device)
        if dtype is None:
            dtype = "float32" if need("torch", PURPOSE).device(device).type == "cpu" else "float16"
        tokenizer = read_tokenizer(export.spec.tokenizer)
        model = load_model(path, dtype)
        check_fit(model, tokenizer)
        max_tokens = export.max_tokens if max_tokens is None else max_tokens
        return cls(model, export.spec, tokenizer, max_tokens=max_tokens, batch=batch, device=device, dtype=dtype)

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> TorchEncoder:
        """Load an export as the registry asks for it; of the options, the device applies."""
        return cls.from_export(export.folder, max_tokens=max_tokens, device=options.device, dtype=dtype)

    @classmethod
    def open_folder(cls, folder: Path, options: LoadOptions, **arguments: Any) -> TorchEncoder:
        """Load a transformers folder as the registry asks for it: `from_folder` on the options' device."""
        return cls.from_folder(folder, device=options.device, **arguments)

    @property
    def summary(self) -> str:
        """Tier, dimensions, type and place of the arithmetic, tokenizer."""
        return f"torch {self.dim}-d {self.dtype} on {self.device}, {self.tokenizer.kind} tokenizer"

    def states(self, ids: Any, mask: Any) -> Any:
        """Run the transformer: (batch, tokens) ids and mask on the device -> (batch, tokens, dim) last hidden state."""
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of sequences of at least one id each, padded on the right to the longest."""
        torch = need("torch", PURPOSE)
        filled, mask = padded(ids, max(map(len, ids)), self.spec.pad_id)
        with torch.inference_mode():
            seen = torch.from_numpy(mask).to(self.device)  # (batch, tokens)
            states = self.states(torch.from_numpy(filled).to(self.device), seen).float()  # (batch, tokens, dim)
            embeddings: NDArray[np.float32] = pool(states, seen, self.pooling, self.normalize).cpu().numpy()
        return embeddings

    def __repr__(self) -> str:
        return (
            f"TorchEncoder(dim={self.dim}, pooling={self.pooling!r}, normalize={self.normalize}, "
            f"max_tokens={self.max_tokens}, tokenizer={self.tokenizer.kind!r}, device={self.device!r}, "
            f"dtype={self.dtype!r}, identity={self.identity[:12]}...)"
        )


def pool(states: Any, seen: Any, pooling: str, normalize: bool) -> Any:
    """Pool token states to embeddings (batch, dim), all torch tensors.

    Args:
        states: (batch, tokens, dim) float32. seen: (batch, tokens), 1 for a token, 0 for padding on the right.
        pooling: "mean", "cls" or "last".
    """
    torch = need("torch", PURPOSE)
    if pooling == "mean":
        x = (states * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True)
    elif pooling == "cls":
        x = states[:, 0]
    else:
        # the last token of each row: padding is on the right
        x = states[torch.arange(len(states), device=states.device), seen.sum(dim=1) - 1]
    return torch.nn.functional.normalize(x, dim=1) if normalize else x


def spec_of(source: TransformerFolder, model: Any, before: tuple[int, ...], after: tuple[int, ...]) -> TransformerSpec:
    """Return the TransformerSpec of a model that transformers loaded."""
    positions = getattr(model.config, "max_position_embeddings", None)
    table: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if positions is not None and getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1  # RoBERTa counts its positions from there
    return TransformerSpec(
        pooling=source.pooling,
        normalize=source.normalize,
        before=before,
        after=after,
        pad_id=int(getattr(model.config, "pad_token_id", None) or 0),
        positions=positions,
        tokenizer=source.tokenizer,
        weights_sha256=source.weights_sha256,
        tokenizer_sha256=source.tokenizer_sha256,
        config_sha256=source.config_sha256,
    )


def _check_dtype(dtype: str | None) -> None:
    if dtype is not None and dtype not in DTYPES:
        raise InvalidInputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")


def _check_device(device: str) -> None:
    torch = need("torch", PURPOSE)
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(
            f"device: expected a device of torch such as 'cpu' or 'cuda:0', got {device!r}"
        ) from error
    try:
        torch.zeros(1, device=device).cpu()  # a name may be right and the device absent: only use tells
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"device: {device!r} was asked for and is missing here: {reason}") from error


def load_model(path: Path, dtype: str) -> Any:
    """Load the transformer of a folder; BundleFormatError where the weights do not fit config.json."""
    torch, transformers = need("torch", PURPOSE), need("transformers", PURPOSE)
    safetensors = need("safetensors", PURPOSE)
    try:
        with quiet():
            model, report = transformers.AutoModel.from_pretrained(
                path,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise BundleFormatError(f"{path}: transformers cannot load it: {error}") from error
    # A weight the file lacks is drawn at random. The pooler is BERT's own, for classification, and not used here.
    absent = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if absent or report["mismatched_keys"]:
        raise BundleFormatError(
            f"{path}: the weights do not fit config.json: missing {absent[:3]}, of another shape "
            f"{sorted(str(key) for key in report['mismatched_keys'])[:3]}"
        )
    model.config.use_cache = False  # keys and values of a decoder, for generation
    return model.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Run the block without transformers' progress bar and its table of loaded weights, which `load_model` checks itself."""
    logging = need("transformers", PURPOSE).utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def check_fit(model: Any, tokenizer: WordPieceTokenizer | LibraryTokenizer) -> None:
    """Refuse an encoder-decoder, and a model that knows fewer tokens than its tokenizer."""
    if model.config.is_encoder_decoder:
        raise InvalidInputError(
            f"folder: expected an encoder or decoder alone, got {model.config.model_type!r}, which is both"
        )
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.max_id >= rows:
        raise BundleFormatError(
            f"tokenizer.json: its ids reach {tokenizer.max_id}, but the model knows {rows} tokens only"
        )
