"""Output paths are judged before the work, by the argument's name."""

import subprocess
import sys

import pytest

from ipr_engine._files import writable_file, writable_folder
from ipr_engine.cli import main
from ipr_engine.errors import InvalidInputError


def test_a_folder_that_is_there_or_can_be_made_passes_and_nothing_is_made(tmp_path):
    assert writable_folder(tmp_path, "out") == tmp_path
    assert writable_folder(tmp_path / "a" / "b", "out") == tmp_path / "a" / "b"
    assert writable_file(tmp_path / "x.png", "plot") == tmp_path / "x.png"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "below", "below/deeper"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidInputError, match=f"^out: expected a folder to write to, got .*{file} is no folder"):
        writable_folder(file / below, "out")


def test_a_link_that_leads_nowhere_is_in_the_way(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="is no folder"):
        writable_folder(tmp_path / "link" / "below", "out")


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path):
    for check in (writable_folder, writable_file):
        with pytest.raises(InvalidInputError, match=r"^out: expected a f"):
            check(path, "out")


def test_a_file_needs_a_folder_and_is_none(tmp_path):
    with pytest.raises(InvalidInputError, match=r"^plot: expected a file to write, got the folder"):
        writable_file(tmp_path, "plot")
    with pytest.raises(InvalidInputError, match="its folder does not exist"):
        writable_file(tmp_path / "none" / "x.png", "plot")


def test_what_may_not_be_written_is_refused():
    """Whoever runs the tests: as root the child becomes nobody first."""
    code = """
import os
from ipr_engine.errors import InvalidInputError
from ipr_engine._files import writable_file, writable_folder
if os.getuid() == 0:
    os.setuid(65534)
for check in (writable_folder, writable_file):
    try:
        check("/made-by-no-test", "out")
    except InvalidInputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot be written; name another") == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["eval", "--outcomes", "/nowhere", "--out", "FILE"], "--out: expected a folder to write to"),
        (["eval", "--outcomes", "/nowhere", "--cache", "FILE"], "--cache: expected a folder to write to"),
        (["calibrate", "--outcomes", "/nowhere", "--split", "all", "--out", "FILE"], "--out: expected a folder"),
        (["calibrate", "--outcomes", "/nowhere", "--split", "all", "--plot", "FILE/x"], "--plot: expected a file"),
        (["explain", "a prompt", "--plot", "/nowhere/x.png"], "--plot: expected a file"),
        (["study", "estimators", "--outcomes", "/nowhere", "--out", "FILE"], "--out: expected a folder"),
    ],
)
def test_commands_name_the_flag_before_they_read_anything(tmp_path, capsys, command, message):
    (tmp_path / "file").touch()
    assert main([word.replace("FILE", str(tmp_path / "file")) for word in command]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--outcomes", "/nowhere", "--candidates", "/nowhere", "--out", "OUT"],
        ["add-model", "--bundle", "/nowhere", "--candidates", "/nowhere", "--out", "OUT"],
        ["data", "split", "made", "OUT"],
        ["eval", "--outcomes", "made"],
    ],
)
def test_a_seed_that_is_none_is_told(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "prompts.csv").write_text("prompt_id,prompt,split\na,x y,train\nb,y z,test\n")
    (tmp_path / "made" / "outcomes.csv").write_text("prompt_id,model,quality\na,m,1\nb,m,0\n")
    pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in command] + ["--seed", "-1"]) == 1
    assert "seed: expected an int >= 0, got -1" in capsys.readouterr().err
