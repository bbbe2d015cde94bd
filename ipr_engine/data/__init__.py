"""Outcome data: what each candidate scored and cost on each prompt. The schema is docs/outcome-data.md.

outcomes = load_outcomes("folder", split="train")       Parquet, CSV or JSONL, checked
full = outcomes.complete(["a", "b"])                    the rows on which both have a quality
"""

from ipr_engine.data.duplicates import duplicate_groups
from ipr_engine.data.embeddings import EmbeddingCache, EmbeddingCacheWarning
from ipr_engine.data.load import load_outcomes, write_outcomes
from ipr_engine.data.names import name_in_source
from ipr_engine.data.outcomes import MEASURES, Outcomes, question_key
from ipr_engine.data.split import SplitReport, split_outcomes

__all__ = [
    "MEASURES",
    "EmbeddingCache",
    "EmbeddingCacheWarning",
    "Outcomes",
    "SplitReport",
    "duplicate_groups",
    "load_outcomes",
    "name_in_source",
    "question_key",
    "split_outcomes",
    "write_outcomes",
]
