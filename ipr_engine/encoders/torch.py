"""The torch tier: a frozen transformer run eagerly by PyTorch, on the CPU or on any device torch has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.bundle import encoder_identity
from ipr_engine.encoders.base import Encoded, as_prompt_list
from ipr_engine.encoders.cut import cut_between_words
from ipr_engine.encoders.tokenizer import LibraryTokenizer, WordPieceTokenizer, read_tokenizer
from ipr_engine.encoders.transformer_folder import TransformerFolder, read_transformer_folder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, InvalidInputError
from ipr_engine.extras import need

DTYPES = ("float32", "float16", "bfloat16")
_PURPOSE = "the torch encoder"


class TorchEncoder:
    """A transformer, its token states pooled to one embedding (sentence-transformers' Transformer, Pooling, Normalize).

    ids = special tokens around those of the prompt, in which literal `[SEP]`-like text is text. x = the mean over all ids,
    the first or the last of their states, in float32; then x / max(||x||, 1e-12) when `normalize`. No prefix is put before a
    prompt. A prompt without one token gives x = 0. Immutable and safe to share between threads; `from_folder` builds it.

    Unlike the static tier's, a row depends on its batch mates, in its last bits: they decide the padding and with it the
    order of sums. Alone or in any batch, in float32 its two values differ by less than 1e-5 * ||x||.

    Attributes:
        dim: of an embedding. max_tokens: the most ids the transformer sees, special ones included.
        identity: see `ipr_engine.bundle.encoder_identity`; the device and `batch` are no part of it.
        pooling: "mean", "cls" or "last". normalize: whether x is divided by its norm.
        device, dtype: where and in what the transformer computes.
        tokenizer: who makes the ids; tokenizer.kind is "wordpiece" (C++) or "tokenizers" (the library).
        native: None: this tier needs Python.
    """

    native = None

    def __init__(
        self,
        model: Any,
        source: TransformerFolder,
        tokenizer: WordPieceTokenizer | LibraryTokenizer,
        special: tuple[list[int], list[int]],
        *,
        max_tokens: int,
        batch: int,
        device: str,
        dtype: str,
    ) -> None:
        self._model = model
        self._head, self._tail = (np.array(ids, dtype=np.int64) for ids in special)
        self._pad = int(getattr(model.config, "pad_token_id", None) or 0)
        self._batch = batch
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pooling, self.normalize = source.pooling, source.normalize
        self.device, self.dtype = device, dtype
        self.identity = encoder_identity(
            kind="torch",
            table=source.weights_sha256,
            tokenizer=source.tokenizer_sha256,
            config=source.config_sha256,
            pooling=source.pooling,
            normalize=source.normalize,
            max_tokens=max_tokens,
            dtype=dtype,
        )
        self.dim = self._embed([np.zeros(1, dtype=np.int64)]).shape[1]

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
            normalize: None is what modules.json says, and no for a bare folder.
            max_tokens: at least one more than the special tokens and within the model's positions. Of a longer prompt the
                first and last half are kept, each cut between words.
            batch: prompts that pass through the transformer together, >= 1; they are taken in the order of their length.
            device: a device of torch: "cpu", "cuda", "cuda:1", "mps".
            dtype: "float32", "float16" or "bfloat16".
        Raises:
            InvalidInputError: an argument is outside of the above, or the folder's pooling cannot be told.
            BackendUnavailableError: torch, transformers or the device is missing here.
            BundleNotFoundError, BundleFormatError: a file is missing or not what it should be; pickled weights are never read.
        """
        for name, number in (("max_tokens", max_tokens), ("batch", batch)):
            if type(number) is not int or number < 1:
                raise InvalidInputError(f"{name}: expected an int >= 1, got {number!r}")
        if dtype not in DTYPES:
            raise InvalidInputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        source = read_transformer_folder(folder, pooling=pooling, normalize=normalize)
        _check_device(device)
        tokenizer = read_tokenizer(source.tokenizer)
        special = _special_ids(source)
        model = _load_model(source.path, dtype)
        _check_fit(model, tokenizer, max_tokens, sum(map(len, special)))
        return cls(
            model.to(device),
            source,
            tokenizer,
            special,
            max_tokens=max_tokens,
            batch=batch,
            device=device,
            dtype=dtype,
        )

    @property
    def summary(self) -> str:
        """Tier, dimensions, what the transformer computes in and where, tokenizer."""
        return f"torch {self.dim}-d {self.dtype} on {self.device}, {self.tokenizer.kind} tokenizer"

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt; see `Encoder.encode` and, for what batch mates change, the class.

        Example:
            >>> encoder = TorchEncoder.from_folder(folder)
            >>> encoder.encode(["Why?", ""]).billed_tokens.tolist()
            [2, 0]
        """
        prompts = as_prompt_list(prompts)
        x = np.zeros((len(prompts), self.dim), dtype=np.float32)
        billed = np.zeros(len(prompts), dtype=np.int64)
        truncated = np.zeros(len(prompts), dtype=np.bool_)
        ids = []
        for row, prompt in enumerate(prompts):
            own, billed[row], truncated[row] = self._ids(prompt, row)
            ids.append(own)
        longest_first = sorted(np.flatnonzero(billed), key=lambda row: -len(ids[row]))
        for begin in range(0, len(longest_first), self._batch):
            rows = longest_first[begin : begin + self._batch]
            x[rows] = self._embed([ids[row] for row in rows])
        return Encoded(x, billed, truncated)

    def count_tokens(self, text: str) -> int:
        """The tokens of a text as `billed_tokens` counts them."""
        return self.tokenizer.count(text)

    def _ids(self, prompt: str, row: int) -> tuple[NDArray[np.int64], int, bool]:
        """What the transformer sees (at most max_tokens,), the prompt's own tokens, and whether some were cut."""
        try:
            own, starts = self.tokenizer.encode(prompt)
        except InvalidInputError as error:
            raise InvalidInputError(str(error).replace("text", f"prompts[{row}]", 1)) from None
        billed, room = len(own), self.max_tokens - len(self._head) - len(self._tail)
        if billed > room:
            head, tail = cut_between_words(starts, room)
            own = np.concatenate([own[:head], own[tail:]])
        return np.concatenate([self._head, own.astype(np.int64), self._tail]), billed, billed > room

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """(batch, dim) embeddings of sequences of at least one id each, padded on the right to the longest."""
        torch = need("torch", _PURPOSE)
        lengths = np.array([len(own) for own in ids])
        padded = np.full((len(ids), lengths.max()), self._pad, dtype=np.int64)
        for row, own in enumerate(ids):
            padded[row, : len(own)] = own
        mask = np.arange(padded.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            seen = torch.from_numpy(mask).to(self.device)  # (batch, tokens)
            states = self._model(
                input_ids=torch.from_numpy(padded).to(self.device), attention_mask=seen.long()
            ).last_hidden_state.float()  # (batch, tokens, dim)
            if self.pooling == "mean":
                x = (states * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True)
            elif self.pooling == "cls":
                x = states[:, 0]
            else:
                x = states[torch.arange(len(ids)), torch.from_numpy(lengths - 1).to(self.device)]
            if self.normalize:
                x = torch.nn.functional.normalize(x, dim=1)
            embeddings: NDArray[np.float32] = x.cpu().numpy()
        return embeddings

    def __repr__(self) -> str:
        return (
            f"TorchEncoder(dim={self.dim}, pooling={self.pooling!r}, normalize={self.normalize}, "
            f"max_tokens={self.max_tokens}, tokenizer={self.tokenizer.kind!r}, device={self.device!r}, "
            f"dtype={self.dtype!r}, identity={self.identity[:12]}...)"
        )


def _check_device(device: str) -> None:
    torch = need("torch", _PURPOSE)
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(
            f"device: expected a device of torch such as 'cpu' or 'cuda:0', got {device!r}"
        ) from error
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"device: {device!r} was asked for and is missing here: {reason}") from error


def _special_ids(source: TransformerFolder) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer's post-processor puts before and after the tokens of a text."""
    from tokenizers import Tokenizer

    try:
        library = Tokenizer.from_str(source.tokenizer.decode())
        library.no_truncation()
        library.no_padding()
        probe = library.encode("a")
    except Exception as error:  # the library raises bare Exception
        raise BundleFormatError(
            f"{source.path / 'tokenizer.json'}: the tokenizers library fails on it: {error}"
        ) from error
    own = np.flatnonzero(np.array(probe.special_tokens_mask) == 0)
    if not len(own):
        raise BundleFormatError(f"{source.path / 'tokenizer.json'}: it gives no token for the text 'a'")
    return probe.ids[: own[0]], probe.ids[own[-1] + 1 :]


def _load_model(path: Path, dtype: str) -> Any:
    torch, transformers = need("torch", _PURPOSE), need("transformers", _PURPOSE)
    safetensors = need("safetensors", _PURPOSE)
    try:
        with _quiet(transformers.utils.logging):
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
    model.config.use_cache = False
    return model.eval().requires_grad_(False)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without transformers' progress bar and its table of loaded weights: what matters of it is checked and raised here."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _check_fit(model: Any, tokenizer: WordPieceTokenizer | LibraryTokenizer, max_tokens: int, special: int) -> None:
    if model.config.is_encoder_decoder:
        raise InvalidInputError(
            f"folder: expected an encoder or decoder alone, got {model.config.model_type!r}, which is both"
        )
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.max_id >= rows:
        raise BundleFormatError(
            f"tokenizer.json: its ids reach {tokenizer.max_id}, but the model knows {rows} tokens only"
        )
    if max_tokens <= special:
        raise InvalidInputError(f"max_tokens: expected more than the {special} special tokens, got {max_tokens}")
    positions = getattr(model.config, "max_position_embeddings", None)
    table: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if positions is not None and getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1  # RoBERTa counts its positions from there
    if positions is not None and max_tokens > positions:
        raise InvalidInputError(f"max_tokens: expected at most the model's {positions} positions, got {max_tokens}")
