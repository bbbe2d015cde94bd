"""docs/install.md names every extra, with the figures of the last recorded line of each."""

import json
import re

import pytest

from tests.support.core_alone import PROJECT
from tests.support.places import ROOT

TEXT = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
DEVELOPERS = {"bench", "peers", "sdk", "test", "lint", "wheel"}  # without figures
EXTRAS = {name: wanted for name, wanted in PROJECT["optional-dependencies"].items() if name not in DEVELOPERS}
ROWS = {
    name: (packages, mb)
    for name, packages, mb in re.findall(r"^\| (none|`\[\S+\]`) \| .* \| (.+?) \| (.+?) \|$", TEXT, re.M)
}
RECORDED = {
    line["what"]: line
    for line in map(json.loads, (ROOT / "benchmarks" / "results" / "install.jsonl").read_text().splitlines())
}


def test_every_extra_has_a_row():
    assert {"none", *(f"`[{extra}]`" for extra in EXTRAS)} == ROWS.keys()
    assert all(f"`[{extra}]`" in TEXT for extra in DEVELOPERS)


@pytest.mark.parametrize("extra", ["core", *EXTRAS])
def test_the_figures_of_an_extra_are_those_recorded(extra):
    line = RECORDED.get(extra)
    shown = ROWS["none" if extra == "core" else f"`[{extra}]`"]
    if line is None:
        assert shown == ("not measured", "not measured")
    else:
        assert shown == (str(line["packages"]), f"{round(line['mb']):,}")


@pytest.mark.parametrize("extra", sorted({"core", *EXTRAS} & RECORDED.keys()))
def test_what_was_recorded_is_what_is_asked_for(extra):
    assert RECORDED[extra]["requirements"] == [*PROJECT["dependencies"], *EXTRAS.get(extra, [])], (
        f"python -m benchmarks.install {extra} --record"
    )


def test_no_document_has_pip_look_for_the_package_on_an_index():
    """None has it: pip takes it from a clone or a wheel. Only an error, read where it is installed, may name it."""
    found = {
        (path.name, line.strip())
        for folder, pattern in (("docs", "*.md"), (".", "README.md"), ("examples", "*.py"))
        for path in sorted((ROOT / folder).glob(pattern))
        for line in path.read_text().splitlines()
        if re.search(r"pip install [^`#]*\bipr_engine\b", line)
    }
    told = {("install.md", "pip install 'ipr_engine[tokenizers]' (No module named 'tokenizers')")}
    assert {one for one in found if "finds nothing" not in one[1]} == told
