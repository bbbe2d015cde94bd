"""What an installation without extras does: everything for static tables, and the rest is an error that names its extra."""

import json
import re

import pytest

from ipr_engine import Engine
from ipr_engine.cli.main import COMMANDS
from tests.support.core_alone import CORE, PROJECT, run_code, run_ipr
from tests.support.library_tokenizers import library_bundle

EXTRAS = PROJECT["optional-dependencies"]


def test_the_core_depends_on_numpy_and_safetensors_alone():
    assert {"numpy", "safetensors"} == CORE


def test_every_extra_that_asks_for_tokenizers_asks_for_the_same_versions():
    asked = {wanted for extra in EXTRAS.values() for wanted in extra if wanted.startswith("tokenizers")}
    assert len(asked) == 1


def test_the_default_bundle_routes(tmp_path):
    done = run_code("import ipr_engine; print(ipr_engine.Engine.load().route('2 + 2?', tau=0.1).model)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == Engine.load().route("2 + 2?", tau=0.1).model


def test_the_help_shows_every_command(tmp_path):
    done = run_ipr("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"^    {command}\b", done.stdout, re.MULTILINE) for command in COMMANDS)


def test_every_command_says_its_options(tmp_path):
    code = f"""
from ipr_engine.cli import main
for command in {list(COMMANDS)!r}:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert not end.code, command
"""
    done = run_code(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^usage: ipr ([\w-]+)", done.stdout, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["demo"], "What a tolerance buys"),
        (["info"], "a bare tau runs rule path"),
        (["route", "2 + 2?"], "USD"),
        (["explain", "2 + 2?"], "quality"),
        (["bench", "load", "--seconds", "0.05", "--warm-up", "0.02", "--lengths", "8"], "harness alone"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_of_the_default_bundle_run(command, shown, tmp_path):
    done = run_ipr(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def refused(done):
    """The extra that an error names, which is one line on stderr."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    [extra] = set(re.findall(r"pip install 'ipr_engine\[([\w-]+)\]'", done.stderr))
    assert extra in EXTRAS
    return extra


def test_a_tokenizer_that_cpp_does_not_reproduce_names_its_extra_and_why(tmp_path):
    done = run_ipr("route", "2 + 2?", "--bundle", str(library_bundle(tmp_path)), cwd=tmp_path)
    assert refused(done) == "tokenizers"
    assert "a tokenizer.json that C++ does not reproduce (it has the added token 'python')" in done.stderr


def test_counting_with_a_tokenizer_file_names_its_extra(tmp_path):
    library_bundle(tmp_path)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "why", "group": "a", "kind": "b"}) + "\n")
    file = str(tmp_path / "sources" / "encoder" / "tokenizer.json")
    asked = ("tokens", "fit", "--texts", "texts.jsonl", "--tokenizer", file, "--out", "out.json")
    assert refused(run_ipr(*asked, cwd=tmp_path)) == "tokenizers"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["explain", "2 + 2?", "--plot", "plot.png"], "eval"),
        (["export-encoder", "model", "out"], "export"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_needs_more_names_its_extra(command, extra, tmp_path):
    assert refused(run_ipr(*command, cwd=tmp_path)) == extra
