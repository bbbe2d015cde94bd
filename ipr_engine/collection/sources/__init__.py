"""This part reads where prompts come from, tables and logs, into `Question`s. Start at `read_questions` (docs/prompt-sources.md)."""

from ipr_engine.collection.sources.asked_row import SourceReport
from ipr_engine.collection.sources.merged_questions import read_prompts, read_questions
from ipr_engine.collection.sources.prompt_source import LAYOUTS, PromptsGiven, PromptSource, prompt_sources

__all__ = [
    "LAYOUTS",
    "PromptSource",
    "PromptsGiven",
    "SourceReport",
    "prompt_sources",
    "read_prompts",
    "read_questions",
]
