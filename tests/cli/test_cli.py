"""The command `ipr`: clean stdout, messages on stderr, exit codes."""

import io
import json
import subprocess
import sys

import pytest

from ipr_engine.cli import main
from ipr_engine.cli.demo import DEMO_PROMPTS
from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def bundle(bundle):
    return str(bundle)


def give_stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data if isinstance(data, bytes) else data.encode())))


def test_route_prints_a_line_a_prompt(bundle, capsys):
    assert main(["route", "first prompt", "second prompt", "--bundle", bundle]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err == ""


def test_route_json_is_one_object_a_line(bundle, capsys):
    assert main(["route", "first prompt", "--json", "--tau", "0.3", "--bundle", bundle]) == 0
    decision = json.loads(capsys.readouterr().out)["decision"]
    assert decision["status"] == "ok"
    assert decision["tau"] == 0.3


def test_route_jsonl_carries_other_fields_through(bundle, capsys, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 7, "prompt": "hello"}\n\n{"id": 8, "messages": [{"role": "user", "content": "hi"}]}\n')
    assert main(["route", "--jsonl", str(path), "--bundle", bundle]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == [7, 8]
    assert all("prompt" not in line for line in lines)


def test_route_reads_one_prompt_from_stdin(bundle, capsys, monkeypatch):
    give_stdin(monkeypatch, "several\nlines\n")
    assert main(["route", "--bundle", bundle]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_explain_json_has_every_candidate(bundle, capsys):
    assert main(["explain", "why", "--json", "--bundle", bundle]) == 0
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 4


def test_info_names_every_candidate(bundle, capsys):
    assert main(["info", "--bundle", bundle]) == 0
    assert "fitted on" in capsys.readouterr().out
    assert main(["info", "--json", "--bundle", bundle]) == 0
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 4


def test_demo_shows_every_prompt(bundle, capsys):
    assert main(["demo", "--bundle", bundle]) == 0
    out = capsys.readouterr().out
    assert "us per decision" in out
    assert all(" ".join(prompt.split())[:12] in out for prompt in DEMO_PROMPTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["route", "x", "--tau", "3"], "tau: expected a value in [0, 1], got 3.0"),
        (["route", "x", "--allow", "nobody"], "allowed: unknown 'nobody'"),
        (["route", "x", "--price", "nonsense"], "--price: expected NAME=IN,OUT"),
        (["route", "x", "--jsonl", "-"], "either as arguments or with --jsonl"),
        (["route", "--jsonl", "/nowhere/at/all.jsonl"], "--jsonl: cannot read"),
    ],
)
def test_an_error_goes_to_stderr_with_exit_code_1(bundle, capsys, arguments, message):
    assert main([*arguments, "--bundle", bundle]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_a_missing_bundle_is_an_error_of_ours(capsys, tmp_path):
    assert main(["info", "--bundle", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"prompt": "a", "messages": []}',
        '{"prompt": "a", "score": NaN}',
        '{"prompt": "a", "n": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"prompt": ""}',
        '{"prompt": "\\ud800"}',
        '{"prompt": 3}',
        '{"prompt": ["a", "b"]}',
        '{"messages": [{"role": "user"}]}',
        '{"prompt": "a", "decision": 1}',
    ],
    ids=range(13),
)
def test_a_bad_jsonl_line_is_named(bundle, capsys, monkeypatch, line):
    give_stdin(monkeypatch, f'{{"prompt": "fine"}}\n{line}\n{{"prompt": "fine too"}}\n')
    assert main(["route", "--jsonl", "-", "--bundle", bundle]) == 3
    captured = capsys.readouterr()
    assert "1 of 3 rows are bad" in captured.err
    assert "stdin, line 2" in captured.err
    before, bad, after = (json.loads(answer) for answer in captured.out.splitlines())
    assert before["decision"]["status"] == after["decision"]["status"] == "ok"
    assert bad.keys() == {"id", "line", "error"}
    assert bad["line"] == 2


def test_a_row_that_cannot_be_decided_gives_exit_code_3(capsys, tmp_path):
    bundle = str(make_bundle(tmp_path, models=2, dim=16, context_windows=[2, 2]))
    assert main(["route", "a b c d e f", "--json", "--bundle", bundle]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["decision"]["status"] == "none_allowed"
    assert "1 row(s) could not be decided" in captured.err


def test_stdin_that_is_not_utf_8_is_named(bundle, capsys, monkeypatch):
    give_stdin(monkeypatch, b"caf\xe9")
    assert main(["route", "--bundle", bundle]) == 1
    assert "stdin: expected UTF-8, got byte 0xe9" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_part_of_the_json(bundle, capsys, monkeypatch):
    give_stdin(monkeypatch, b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert main(["route", "--jsonl", "-", "--bundle", bundle]) == 0


def test_json_lines_carry_any_text_in_ascii(bundle, capsys, monkeypatch):
    give_stdin(monkeypatch, '{"prompt": "a", "id": "\\ud800 é"}')
    assert main(["route", "--jsonl", "-", "--bundle", bundle]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)["id"] == "\ud800 é"


def test_control_characters_of_a_prompt_do_not_reach_the_terminal(bundle, capsys):
    assert main(["route", "red \x1b[31m text", "--bundle", bundle]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_names_may_be_separated_by_commas(bundle, capsys):
    assert main(["route", "a", "--json", "--allow", "beta/mid,GAMMA/small", "--bundle", bundle]) == 0
    assert set(json.loads(capsys.readouterr().out)["decision"]["ranked"]) == {"beta/mid", "gamma/small"}


def test_a_full_disk_is_told_in_one_line(bundle):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ipr_engine", "route", "a", "--bundle", bundle]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "ipr route: cannot write the result: No space left on device"


def test_a_terminal_without_a_character_gets_an_escape(bundle):
    command = [sys.executable, "-m", "ipr_engine", "route", "量子", "--bundle", bundle]
    done = subprocess.run(command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True)
    assert "\\u91cf" in done.stdout


@pytest.mark.parametrize(
    "command", ["route", "explain", "replay", "info", "demo", "data", "train", "add-model", "eval", "distill"]
)
def test_help_says_what_each_command_does(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_the_installed_command_runs(bundle):
    done = subprocess.run(
        [sys.executable, "-m", "ipr_engine", "route", "hello", "--json", "--bundle", bundle],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["decision"]["model"]


def test_a_row_may_be_a_whole_request_with_its_bill(bundle, capsys, monkeypatch):
    user = {"role": "user", "content": "what is it"}
    image = {
        "role": "user",
        "content": [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {}}],
    }
    tools = [{"type": "function", "function": {"name": "add", "description": "adds " * 100}}]
    rows = [
        {"id": 1, "messages": [user]},
        {"id": 2, "messages": [image], "billed_tokens": 800},
        {"id": 3, "messages": [user], "tools": tools, "max_tokens": 3, "model": "auto"},
        {"id": 4, "input": "what is it", "instructions": "be brief", "tokens_out": 1},
        {"id": 5, "prompt": "what is it", "extra_usd": [[0, 0, 0, 1]], "billed_tokens": None},
        {"id": 6, "messages": [image]},
        {"id": 7, "prompt": "what is it", "billed_tokens": "many"},
        {"id": 8, "prompt": "what is it", "tools": tools, "type": "batch", "conversation": "c"},
        {"id": 9, "prompt": "what is it", "tokens_out": [[1], [2, 3]]},
    ]
    give_stdin(monkeypatch, "".join(json.dumps(row) + "\n" for row in rows))
    assert main(["route", "--jsonl", "-", "--tau", "0.5", "--bundle", bundle]) == 3
    captured = capsys.readouterr()
    plain, seen, asked, items, extra, unbilled, wrong, body, ragged = map(json.loads, captured.out.splitlines())
    assert seen["decision"]["billed_tokens"] == 800
    assert "lacks vision, needed by 'image_url'" in seen["decision"]["excluded"].values()
    assert asked["decision"]["billed_tokens"] > 100
    assert asked["decision"]["tokens_out"] <= 3
    assert asked.keys() == {"id", "model", "max_tokens", "decision"}
    assert items["decision"]["billed_tokens"] > plain["decision"]["billed_tokens"]
    assert items["decision"]["tokens_out"] == 1
    assert extra["decision"]["model"] != "delta/tiny"
    assert (unbilled["id"], wrong["id"]) == (6, 7)
    assert "pass billed_tokens=" in unbilled["error"]
    assert "billed_tokens: expected" in wrong["error"]
    assert (body["type"], body["conversation"]) == ("batch", "c")
    assert body["decision"]["billed_tokens"] > 100
    assert "tokens_out: expected a number, or rows of numbers of one length" in ragged["error"]
    assert "3 of 9 rows are bad" in captured.err


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ('{"prompt": "why", "messages": [{"role": "user", "content": "x"}]}', "got 'messages' and 'prompt'"),
        ('{"text": "why"}', "got none of them"),
        ("[1, 2]", "got a JSON array"),
        ('"why"', "got a JSON string"),
        ("null", "got a JSON null"),
        ("7", "got a JSON number"),
    ],
)
def test_a_row_that_is_no_prompt_is_told_with_what_came(bundle, capsys, monkeypatch, line, got):
    give_stdin(monkeypatch, line + "\n")
    assert main(["route", "--jsonl", "-", "--bundle", bundle]) == 3
    assert json.loads(capsys.readouterr().out)["error"].endswith(got)


def test_a_bad_row_tells_no_text_of_its_prompt(bundle, capsys, monkeypatch):
    secret = "my secret prompt"
    rows = [
        json.dumps({"prompt": f"{secret} \udc80", "id": "a"}),
        json.dumps({"promt": secret, "id": "b"}),
        f'{{"prompt": "{secret}"',
        json.dumps({"messages": [{"role": secret, "content": secret}]}),
        json.dumps({"messages": [{"role": "user", "content": [{"type": secret}]}]}),
    ]
    give_stdin(monkeypatch, "\n".join(rows).encode() + b'\n{"prompt": "caf\xe9"}\n{"prompt": "fine"}')
    assert main(["route", "--jsonl", "-", "--bundle", bundle]) == 3
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert [answer.get("id") for answer in answers] == ["a", "b", None, None, None, None, None]
    assert [answer.get("line") for answer in answers] == [1, 2, 3, 4, 5, 6, None]
    assert "expected UTF-8, got byte 0xe9" in answers[5]["error"]
    assert answers[6]["decision"]["status"] == "ok"
    assert "6 of 7 rows are bad" in captured.err
    assert "line 1, line 2, line 3, line 4, line 5 ..." in captured.err
