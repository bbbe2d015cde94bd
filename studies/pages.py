"""A `Page` is a study's page: Markdown with its tables, the same numbers as JSON, plots beside it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.checkout import commit
from ipr_engine.evaluation.report import to_json

PACKAGES = ("ipr_engine", "numpy", "scikit-learn", "torch", "transformers")


@dataclass
class Page:
    """A `Page` grows by `say` and `table`; `write` puts it on disk.

    Attributes:
        name: file name without ending. title: first line. command: what makes it.
        figures: what the JSON holds.
    """

    name: str
    title: str
    command: str
    figures: dict[str, Any] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph, or a heading that starts with #."""
        self.blocks.append(" ".join(text.split()) if not text.startswith("#") else text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [header, ["---"] * len(header), *rows]
        self.blocks.append("\n".join(f"| {' | '.join(row)} |" for row in lines))

    def plot(self, path: Path, caption: str) -> None:
        self.blocks.append(f"![{caption}]({path.name})\n\n{caption}.")

    def write(self, out: Path) -> list[Path]:
        """Write <name>.md and <name>.json below `out`; return both."""
        out.mkdir(parents=True, exist_ok=True)
        found = {package: _version(package) for package in PACKAGES}
        versions = ", ".join(f"{package} {v}" for package, v in found.items() if v)
        made_at = commit()
        at = f", commit {made_at}" if made_at else ""
        head = [
            f"# {self.title}",
            f"Written by `{self.command}`; do not edit. {versions}, Python {platform.python_version()}{at}.",
        ]
        paths = [out / f"{self.name}.md", out / f"{self.name}.json"]
        paths[0].write_text("\n\n".join([*head, *self.blocks]) + "\n", encoding="utf-8")
        document = {"command": self.command, "versions": found, "commit": made_at, **self.figures}
        paths[1].write_text(to_json(document), encoding="utf-8")
        return paths


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
