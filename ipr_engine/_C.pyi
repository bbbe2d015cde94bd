import numpy as np
from numpy.typing import NDArray

# ---- bind_encoder.cpp

class WordPiece:
    def __init__(
        self,
        vocab: dict[str, int],
        *,
        unk_token: str = "[UNK]",
        continuing_prefix: str = "##",
        max_chars_per_word: int = 100,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
    ) -> None: ...
    def encode(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]: ...
    def count(self, text: str) -> int: ...
    def words(self, text: str) -> list[str]: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def max_id(self) -> int: ...

class StaticEncoder:
    def __init__(
        self,
        embeddings: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8],
        *,
        tokenizer: WordPiece | None = None,
        mapping: NDArray[np.integer] | None = None,
        weights: NDArray[np.floating] | None = None,
        unk_id: int = -1,
        max_tokens: int = 512,
        normalize: bool = True,
        isa: str = "auto",
    ) -> None: ...
    def encode(
        self, prompts: list[str] | tuple[str, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]: ...
    def encode_ids(self, ids: NDArray[np.uint32], starts: NDArray[np.bool_]) -> tuple[NDArray[np.float32], bool]: ...
    @property
    def dim(self) -> int: ...
    @property
    def token_count(self) -> int: ...
    @property
    def isa(self) -> str: ...
