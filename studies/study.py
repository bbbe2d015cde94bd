"""A `Study` is what the command line hands to a study, and what the studies share of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ipr_engine.errors import InvalidInputError
from studies.cases import RECIPES, Case, load_case
from studies.pages import Page
from studies.views import Views


@dataclass(eq=False)
class Study:
    """A `Study` is one run.

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

    def cases(self, default: Sequence[str]) -> list[Case]:
        """Return the sources asked for, or those of `default` that are in the folder.

        Raises:
            InvalidInputError: a source of no recipe is asked for, or none is found.
        """
        folders = {name: RECIPES[name].source for name in default}
        return [self.case(name) for name in self.sources or self._found(folders)]

    def names(self, known: Sequence[str]) -> tuple[str, ...]:
        """Return the sources asked for, or those of `known` that are in the folder, where a study reads these and no others.

        Raises:
            InvalidInputError: another source is asked for, or none is found.
        """
        other = [name for name in self.sources if name not in known]
        if other:
            raise InvalidInputError(f"source: this study reads {', '.join(known)} alone, got {', '.join(other)}")
        return self.sources or self._found({name: name for name in known})

    def _found(self, folders: Mapping[str, str]) -> tuple[str, ...]:
        names = tuple(name for name, folder in folders.items() if (self.outcomes / folder).is_dir())
        if not names:
            raise InvalidInputError(
                f"outcomes: expected a folder that holds one of {', '.join(dict.fromkeys(folders.values()))}, "
                f"got {self.outcomes}, which has none of them; name it with --outcomes"
            )
        return names

    def case(self, name: str) -> Case:
        self.progress(f"reading {name} ...")
        return load_case(self.outcomes, name, draws=self.draws)

    def page(self, name: str, title: str) -> Page:
        return Page(name, title, self.command)
