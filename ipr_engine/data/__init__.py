"""Outcome data say what each candidate scored and cost on each prompt. The schema is docs/outcome-data.md.

outcomes = load_outcomes("folder", split="train")       Parquet, CSV or JSONL, checked
full = outcomes.complete(["a", "b"])                    the rows on which both have a quality
"""

from ipr_engine.data.duplicates import duplicate_groups
from ipr_engine.data.embeddings import EmbeddingCache, EmbeddingCacheWarning, embed_prompts
from ipr_engine.data.outcome_files import load_outcomes, write_outcomes
from ipr_engine.data.outcomes import MEASURES, Outcomes, name_in_source, question_key
from ipr_engine.data.overlap import key_of_hashes, overlap, prompt_hashes, read_prompt_hashes
from ipr_engine.data.split import SplitReport, split_outcomes

__all__ = [
    "MEASURES",
    "EmbeddingCache",
    "EmbeddingCacheWarning",
    "Outcomes",
    "SplitReport",
    "duplicate_groups",
    "embed_prompts",
    "key_of_hashes",
    "load_outcomes",
    "name_in_source",
    "overlap",
    "prompt_hashes",
    "question_key",
    "read_prompt_hashes",
    "split_outcomes",
    "write_outcomes",
]
