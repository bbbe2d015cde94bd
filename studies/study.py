"""What the command line hands to a study, and what the studies share of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from studies.cases import RECIPES, Case, load_case
from studies.pages import Page
from studies.views import Views


@dataclass(eq=False)
class Study:
    """One run.

    Attributes:
        outcomes: folder with one source a subfolder. out: where pages and plots go.
        sources: asked for; empty takes the study's own list.
        transformer: a sentence-transformers folder, None where no view needs it. cache: of its embeddings.
    """

    outcomes: Path
    out: Path
    sources: tuple[str, ...]
    transformer: Path | None
    cache: Path | None
    draws: int
    command: str
    progress: Callable[[str], None]

    @cached_property
    def views(self) -> Views:
        return Views(self.transformer, self.cache)

    def cases(self, default: tuple[str, ...]) -> list[Case]:
        """The sources asked for, or those of `default` that are in the folder."""
        names = self.sources or tuple(name for name in default if (self.outcomes / RECIPES[name].source).is_dir())
        return [self.case(name) for name in names]

    def case(self, name: str) -> Case:
        self.progress(f"reading {name} ...")
        return load_case(self.outcomes, name, draws=self.draws)

    def page(self, name: str, title: str) -> Page:
        return Page(name, title, self.command)
