"""What the documents show is run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{n}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL), start=1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_of_the_documents_runs(block, capsys):
    exec(compile(block, "document", "exec"), {})
    assert capsys.readouterr().out or "assert" in block


def test_every_relative_link_of_the_documents_leads_somewhere():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
