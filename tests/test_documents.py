"""What the documents show is run."""

import re

import pytest

from ipr_engine import InvalidInputError
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.measures.prediction import Constancy
from ipr_engine.training.selection import refuse_constant
from tests.support.places import ROOT
from tests.support.skips import EXTRA

BLOCKS = [
    pytest.param(block, id=f"{path.name}-{n}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL), start=1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_of_the_documents_runs(block, capsys):
    try:
        exec(compile(block, "document", "exec"), {})
    except BackendUnavailableError as error:  # what a document is about may need an extra
        pytest.skip(f"{EXTRA}: {error}")
    assert capsys.readouterr().out or "assert" in block


def test_every_relative_link_of_the_documents_leads_somewhere():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


OWN_BUNDLE = (ROOT / "docs" / "own-bundle.md").read_text()


def test_the_candidates_file_shown_is_one_that_train_reads(tmp_path):
    shown = re.search(r'\n(    \{"date": .*?\n)\n', OWN_BUNDLE, re.DOTALL)
    (tmp_path / "candidates.json").write_text(shown[1])
    big, small = read_candidates(tmp_path / "candidates.json").candidates
    assert (big.tokenizer.name, big.performance.tpot_s, small.latency_ms) == ("o200k_base", 0.0142, 400)


def test_the_error_shown_is_the_one_that_train_prints():
    reason = Constancy(brier=0.05, brier_of_mean=0.05, upper=-0.01, spread=0.0).reason
    with pytest.raises(InvalidInputError) as error:
        refuse_constant({"big-model": reason}, 2)
    assert f"ipr train: {error.value}" in " ".join(OWN_BUNDLE.split())
