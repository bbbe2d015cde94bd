"""`ipr route --record` and `ipr replay`: what is written, what is told, and the exit codes."""

import io
import json
import subprocess
import sys

import pytest

from ipr_engine import Bundle, Price
from ipr_engine.bundle import PriceList, with_prices
from ipr_engine.cli import main
from tests.support import skips
from tests.support.bundles import make_bundle, make_siblings

pytest.importorskip("cryptography", reason=skips.RECORDS)


@pytest.fixture(scope="module")
def dear(bundle):
    """The same bundle with the prices turned round."""
    prices = {
        name: Price(input_usd_per_1m=1.0 + n, output_usd_per_1m=4.0 + n, basis="test")
        for n, name in enumerate(Bundle.load(bundle).names)
    }
    return with_prices(bundle, PriceList(date="2026-11-24", prices=prices), activate=False)


@pytest.fixture
def log(bundle, tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    requests = tmp_path / "in.jsonl"
    requests.write_text(
        '{"id": "one", "prompt": "hello there"}\n{"id": 2, "messages": [{"role": "user", "content": "hi"}]}\n'
    )
    options = ["--bundle", str(bundle), "--record", str(path), "--record-min-words", "0", "--tau", "0.8"]
    assert main(["route", "--jsonl", str(requests), *options]) == 0
    assert main(["route", "first prompt", "second prompt", "--price", "beta/mid=0.1,0.2", *options]) == 0
    capsys.readouterr()
    return path


def replay(capsys, *arguments):
    code = main(["replay", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_recording_changes_nothing_of_what_route_prints(bundle, tmp_path, capsys):
    plain = ["route", "first prompt", "second prompt", "--json", "--bundle", str(bundle)]
    assert main(plain) == 0
    expected = capsys.readouterr().out
    assert main([*plain, "--record", str(tmp_path / "log.jsonl")]) == 0
    assert capsys.readouterr().out == expected


def test_the_same_bundle_replays_equal_with_exit_code_0(bundle, log, capsys, isa):
    code, out, err = replay(capsys, log, "--bundle", bundle, "--isa", isa)
    assert (code, err) == (0, "")
    assert "4 records: 4 equal, 0 different, 0 not replayed" in out
    assert f"replayed on {isa}, bundle {bundle.name[:12]}" in out


def test_records_append_and_carry_ids_but_no_prompt(log):
    documents = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [document["id"] for document in documents] == ["one", 2, 1, 2]
    assert all("prompt" not in document for document in documents)
    assert b"hello" not in log.read_bytes()


def test_prompts_are_recorded_when_asked_for(bundle, tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    assert main(["route", "a prompt", "--bundle", str(bundle), "--record", str(path), "--record-prompts"]) == 0
    assert json.loads(path.read_bytes())["prompt"] == "a prompt"
    assert main(["route", "a prompt", "--bundle", str(bundle), "--record-prompts"]) == 1
    assert "--record-prompts: there are no records" in capsys.readouterr().err


def test_other_prices_give_exit_code_4_and_every_difference(dear, log, capsys):
    code, out, _ = replay(capsys, log, "--bundle", dear)
    assert code == 4
    assert "line 1 (id one): cost_usd[alpha/large]: " in out
    assert "choices changed:" in out
    assert "quality[" not in out
    code, summary, _ = replay(capsys, log, "--bundle", dear, "--summary")
    assert code == 4
    assert out.endswith(summary)
    assert not summary.startswith("line")


def test_json_has_an_object_a_line_that_differs_and_the_summary_last(dear, log, capsys):
    code, out, _ = replay(capsys, log, "--bundle", dear, "--json")
    *lines, last = [json.loads(line) for line in out.splitlines()]
    assert code == 4
    assert [(line["line"], line["id"]) for line in lines] == [(1, "one"), (2, 2), (3, 1), (4, 2)]
    for difference in (difference for line in lines for difference in line["differences"]):
        assert {"field", "recorded", "now"} <= difference.keys()
        assert difference["recorded"] != difference["now"]
    summary = last["summary"]
    assert (summary["records"], summary["different"], summary["refused"]) == (4, 4, 0)
    assert summary["replayed_on"]["bundle"] == dear.name
    assert summary["choices_changed"] == sum(any(d["field"] == "model" for d in line["differences"]) for line in lines)


def test_damaged_lines_give_exit_code_3_and_their_numbers(bundle, dear, log, capsys):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]) + lines[0][:50])
    for path in (bundle, dear):  # whatever the other lines come to
        code, out, _ = replay(capsys, log, "--bundle", path)
        assert code == 3
        assert "line 2: not replayed: expected one JSON object" in out
        assert "line 6: not replayed: " in out
        assert "2 not replayed" in out


def test_records_of_other_heads_give_exit_code_3(log, tmp_path, capsys):
    other = make_bundle(tmp_path, models=4, dim=16, seed=9)
    code, out, _ = replay(capsys, log, "--bundle", other, "--json")
    assert code == 3
    assert "x: decided by heads" in json.loads(out.splitlines()[0])["refused"]
    assert json.loads(out.splitlines()[-1])["summary"]["refused"] == 4


def test_a_log_is_read_from_stdin(bundle, log, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.read_bytes())))
    code, out, _ = replay(capsys, "-", "--bundle", bundle)
    assert (code, out.splitlines()[0][:10]) == (0, "4 records:")


def test_a_log_without_a_record_or_that_cannot_be_read_is_an_error(bundle, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    for path, message in (
        (tmp_path / "empty.jsonl", "LOG: expected records, one a line, got none"),
        (tmp_path / "nowhere.jsonl", "LOG: cannot read"),
        (tmp_path, "LOG: cannot read"),
    ):
        code, out, err = replay(capsys, path, "--bundle", bundle)
        assert (code, out) == (1, "")
        assert message in err


def test_a_log_that_cannot_be_written_is_an_error(bundle, capsys):
    assert main(["route", "a", "--bundle", str(bundle), "--record", "/dev/full"]) == 1
    assert "to: cannot write to /dev/full" in capsys.readouterr().err


def test_a_prompt_that_is_refused_is_named_by_its_line_when_recording_too(bundle, tmp_path, capsys, monkeypatch):
    data = b'{"prompt": "fine"}\n{"prompt": ["a", "b"]}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    log = tmp_path / "log.jsonl"
    assert main(["route", "--jsonl", "-", "--bundle", str(bundle), "--record", str(log)]) == 3
    captured = capsys.readouterr()
    assert "stdin, line 2" in captured.err
    assert json.loads(captured.out.splitlines()[1])["error"] == "prompt: expected one prompt, got list of str"
    assert len(log.read_bytes().splitlines()) == 1


def test_processes_may_append_to_one_log(bundle, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    prompts = [f"prompt {n}" for n in range(40)]
    command = [
        sys.executable,
        "-m",
        "ipr_engine",
        "route",
        *prompts,
        "--bundle",
        str(bundle),
        "--record",
        str(log),
        "--record-min-words",
        "0",
    ]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    code, out, _ = replay(capsys, log, "--bundle", bundle)
    assert code == 0
    assert "120 records: 120 equal" in out


def test_options_replace_those_terms_of_each_record_and_say_so(bundle, log, capsys):
    code, out, _ = replay(capsys, log, "--bundle", bundle, "--tau", "0")
    assert code == 4
    assert "threshold: " in out
    assert "decided under tau=0.0 in place of each record's own; its other terms stand" in out
    assert replay(capsys, log, "--bundle", bundle, "--tau", "0.8")[0] == 0  # each at its own prices
    code, out, _ = replay(capsys, log, "--bundle", bundle, "--summary")
    assert (code, "in place of" in out) == (0, False)


def test_options_alone_need_no_tau(bundle, log, capsys):
    code, out, _ = replay(capsys, log, "--bundle", bundle, "--price", "beta/mid=1000,1000", "--json")
    *lines, last = [json.loads(line) for line in out.splitlines()]
    assert code == 4
    assert {d["field"] for line in lines for d in line["differences"]} >= {"cost_usd[beta/mid]"}
    assert not any(d["field"] == "cost_usd[alpha/large]" for line in lines for d in line["differences"])
    prices = {"date": None, "prices": {"beta/mid": [1000.0, 1000.0]}}
    assert last["summary"]["replaced"] == {"prices": prices}
    assert last["summary"]["whole_policy"] is False
    code, out, _ = replay(capsys, log, "--bundle", bundle, "--allow", "alpha/large")
    assert code == 4
    assert "alpha/large: " in out


def test_a_term_that_no_record_could_have_is_an_error(bundle, log, capsys):
    for option, message in (
        (["--tau", "1.5"], "tau: expected a value in [0, 1]"),
        (["--allow", "nobody"], "allowed: unknown 'nobody'"),
        (["--tau", "0.5", "--preset", "cost"], "got tau, preset"),
        (["--cost-weight", "usd=0"], "cost_weights: expected a weight above 0"),
    ):
        code, out, err = replay(capsys, log, "--bundle", bundle, *option)
        assert (code, out) == (1, "")
        assert message in err


def test_a_term_that_does_not_fit_a_record_is_told_line_by_line(bundle, log, capsys):
    code, out, _ = replay(capsys, log, "--bundle", bundle, "--preset", "cost")
    assert code == 3
    assert "line 1 (id one): not replayed: terms: preset: only rule 'calibrated' answers it, got rule 'minmax'" in out


def test_options_for_records_need_a_log(bundle, capsys, tmp_path):
    for option in (["--record-x"], ["--record-min-words", "3"], ["--key", str(tmp_path / "owner.key")]):
        assert main(["route", "a", "--bundle", str(bundle), *option]) == 1
        assert f"{option[0]}: there are no records" in capsys.readouterr().err
    assert main(["route", "a", "--bundle", str(bundle), "--record", str(tmp_path / "log"), "--record-x"]) == 1
    told = capsys.readouterr().err
    assert "--record-x: an embedding tells the words of its prompt" in told
    assert "add --key FILE (`ipr key FILE` makes one)" in told


def test_a_key_is_made_once_and_never_shown(capsys, tmp_path):
    path = tmp_path / "owner.key"
    assert main(["key", str(path)]) == 0
    out = capsys.readouterr().out
    secret = path.read_text().strip()
    assert len(secret) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in out
    assert main(["key", str(path)]) == 1
    captured = capsys.readouterr()
    assert "is there already" in captured.err
    assert secret not in captured.out + captured.err
    assert path.read_text().strip() == secret


def test_a_record_replays_on_a_sibling_whose_candidates_stand_in_another_order(tmp_path, capsys):
    one, other = make_siblings(tmp_path, 2, models=4)
    log, key = tmp_path / "log.jsonl", str(tmp_path / "owner.key")
    assert main(["key", key]) == 0
    kept = ["--record", str(log), "--record-x", "--key", key]
    assert main(["route", "hello", "--bundle", str(one), *kept]) == 0
    assert replay(capsys, log, "--bundle", other)[0] == 3
    code, out, _ = replay(capsys, log, "--bundle", other, "--key", key)
    assert code == 4
    assert "candidates: ('alpha/large', " in out


def test_every_option_of_a_policy_is_a_term_that_replay_takes_alone():
    """None of them is passed over: a new one that `given_options` lacks fails here."""
    import argparse

    from ipr_engine.cli.options import add_policy_options, given_options
    from ipr_engine.policy.policy_spec import DEFAULTS

    parser = argparse.ArgumentParser()
    add_policy_options(parser)
    values = {"rule": "minmax", "prices": "beta/mid=1,2", "cost_weights": "usd=2", "preset": "cost"}
    assert given_options(parser.parse_args([])) == {}
    found = set()
    for action in parser._actions:  # noqa: SLF001  argparse lists its options nowhere else
        if action.dest == "help":
            continue
        value = [] if action.nargs == 0 else [values.get(action.dest, "0.5")]
        [term] = given_options(parser.parse_args([action.option_strings[0], *value]))
        found.add(term)
    assert found == DEFAULTS.keys() - {"performance"}
