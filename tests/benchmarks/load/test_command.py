"""`ipr bench`: exit codes, clean JSON, recorded runs, every bad argument named."""

import json
import sys

import pytest

from ipr_engine.cli import main
from ipr_engine.cli.bench import spelled_out
from tests.support import skips
from tests.support.bundles import make_bundle

SHORT = ["--seconds", "0.2", "--warm-up", "0.05", "--lengths", "8"]


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """What surrounds a run (probes, the harness alone, the pass apart) is as it is, only shorter."""
    monkeypatch.setattr("benchmarks.load.noise.PROBE_S", 0.01)
    monkeypatch.setattr("benchmarks.load.measure.FLOOR_S", 0.03)
    monkeypatch.setattr("benchmarks.load.measure.SPLIT_CALLS", 200)
    monkeypatch.setattr("benchmarks.load.measure.ROUNDS", 8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(make_bundle(tmp_path_factory.mktemp("bundle"), models=4, dim=16))


def bench(capsys, *arguments):
    code = main(["bench", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_plain_bench_is_a_load_run():
    assert spelled_out(["bench"]) == ["bench", "load"]
    assert spelled_out(["bench", "--slo", "p99=5ms"]) == ["bench", "load", "--slo", "p99=5ms"]
    assert spelled_out(["bench", "soak"]) == ["bench", "soak"]
    assert spelled_out(["bench", "--help"]) == ["bench", "--help"]
    assert spelled_out(["route", "--tau", "0"]) == ["route", "--tau", "0"]


def test_a_met_objective_exits_with_0_and_json_alone_on_stdout(bundle, capsys):
    code, out, _ = bench(capsys, *SHORT, "--slo", "p50=1s", "--json", "--bundle", bundle)
    document = json.loads(out)
    assert code == document["exit_code"] == 0
    [run] = document["runs"]
    assert document["slo"][0]["verdict"] == "met"
    assert set(run["quantiles"]) == {"total", "queue", "service"}
    assert set(run["stages_apart"]) == {"tokenize", "encode", "decide"}
    assert run["requests"] > 0
    assert run["warm_up"]["requests"] > 0
    assert run["machine"]
    assert run["command"].split()[0] == "ipr"
    assert "prompt" not in out  # no text of a prompt is recorded


def test_a_missed_objective_exits_with_5_and_names_a_stage(bundle, capsys):
    code, out, _ = bench(capsys, *SHORT, "--slo", "p50=1ns,decide.p50=1ns", "--bundle", bundle)
    assert code == 5
    assert "SLO p50=1ns: missed" in out
    assert "to blame: " in out
    assert "SLO decide.p50=1ns: missed" in out


def test_an_objective_that_cannot_be_told_exits_with_6(bundle, capsys):
    code, out, _ = bench(capsys, *SHORT, "--rate", "200", "--slo", "p99.9=1s", "--bundle", bundle)
    assert code == 6
    assert "cannot tell" in out
    assert "widen the run" in out


def test_an_open_loop_of_every_kind_runs(bundle, capsys):
    for kind in ("poisson", "bursts", "constant"):
        code, out, _ = bench(
            capsys, *SHORT, "--rate", "500", "--arrivals", kind, "--burst", "5", "--json", "--bundle", bundle
        )
        assert code == 0
        assert json.loads(out)["runs"][0]["case"]["arrivals"] == kind


def test_an_async_target_and_progress_on_stderr_alone(bundle, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.cli.options.Reporter.EVERY_S", 0.0)
    code, out, err = bench(
        capsys, "--seconds", "0.7", "--target", "inline", "--callers", "4", "--json", "--bundle", bundle
    )
    assert code == 0
    assert json.loads(out)["runs"][0]["case"]["callers"] == 4
    assert "answers" in err


def test_recorded_runs_are_compared_and_another_case_is_refused(bundle, capsys, tmp_path):
    base = str(tmp_path / "base.jsonl")
    for _ in range(3):
        assert bench(capsys, *SHORT, "--record", base, "--bundle", bundle, "--json")[0] == 0
    assert len((tmp_path / "base.jsonl").read_text().splitlines()) == 3
    code, out, _ = bench(capsys, *SHORT, "--compare", base, "--json", "--bundle", bundle)
    comparison = json.loads(out)["compare"][0]
    assert comparison["base_runs"] == 3
    assert code == {"slower": 5, "cannot tell": 6}.get(comparison["verdict"], 0)
    code, _, err = bench(capsys, *SHORT, "--callers", "2", "--compare", base, "--bundle", bundle)
    assert code == 1
    assert "no recorded run of this case" in err
    code, out, _ = bench(capsys, "compare", base, base, "--json")
    assert json.loads(out)["compare"][0]["verdict"] in ("no change", "cannot tell")
    assert code in (0, 6)


def test_the_verdict_of_a_comparison_is_the_exit_code(bundle, capsys, tmp_path):
    base, slow = tmp_path / "base.jsonl", tmp_path / "slow.jsonl"
    bench(capsys, *SHORT, "--record", str(base), "--bundle", bundle, "--json")
    run = json.loads(base.read_text())
    for row in run["subruns"]:
        row.update({name: value and value * 3 for name, value in row.items() if name.endswith("_us")})
    slow.write_text(json.dumps(run) + "\n")
    code, out, _ = bench(capsys, "compare", str(base), str(slow))
    assert code == 5
    assert "slower" in out
    assert bench(capsys, "compare", str(slow), str(base))[0] in (0, 6)


@pytest.mark.slow
def test_turns_against_another_setting_are_paired(bundle, capsys):
    code, out, _ = bench(
        capsys, "--seconds", "1", "--lengths", "8", "--against", "isa=scalar", "--json", "--bundle", bundle
    )
    document = json.loads(out)
    assert len(document["runs"]) == 2
    assert document["runs"][1]["settings"]["isa"] == "scalar"
    assert document["compare"][0]["paired"]
    assert code in (0, 5, 6)


def test_peers_that_are_absent_are_reported(bundle, capsys, monkeypatch):
    from benchmarks.peers import registry as peers

    ghost = peers.Peer("ghost", ("a_package_that_does_not_exist",), "pip install ghost", "routers:Ghost", "")
    monkeypatch.setattr(peers, "PEERS", (ghost,))
    code, out, err = bench(capsys, *SHORT, "--peers", "all", "--json", "--bundle", bundle)
    assert code == 0
    assert "not installed" in json.loads(out)["peers_absent"]["ghost"]
    assert "peer ghost: not installed" in err


@pytest.mark.slow
def test_ladder_and_saturation_tell_each_step(bundle, capsys, monkeypatch):
    from benchmarks.load import ladder

    monkeypatch.setattr(ladder, "SHARES", (0.2, 0.5))
    monkeypatch.setattr(ladder, "SEARCH", (1, 2))
    steps = ["--seconds", "0.05", "--warm-up", "0.02", "--bundle", bundle]
    code, out, _ = bench(capsys, "--ladder", *steps, "--lengths", "4,8", "--target", "inline", "--json")
    document = json.loads(out)
    assert code == 0
    assert [step["callers"] for step in document["steps"]["8 tokens"]] == [1, 8, 20, 32, 128]
    assert {row["machine"] for row in document["published"]} == {"AMD MI300X", "NVIDIA RTX 4090"}
    code, out, _ = bench(capsys, "--saturate", *steps, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["most"]["sustained_rps"] > 0
    assert [step["share_of_most"] for step in document["steps"]["open loop"]] == [0.2, 0.5]


@pytest.mark.slow
def test_a_soak_gives_its_verdicts(bundle, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.cli.soak_command.SEARCH_S", 0.05)
    monkeypatch.setattr("benchmarks.load.ladder.SEARCH", (1, 2))
    monkeypatch.setattr("benchmarks.load.soak.LEAST_WINDOW_S", 0.1)
    code, out, _ = bench(capsys, "soak", "--minutes", "0.01", "--load", "0.2", "--json", "--bundle", bundle)
    document = json.loads(out)
    assert code == document["exit_code"]
    assert document["verdicts"]["errors"] == document["verdicts"]["drops"] == "none"
    assert document["overload"]["rate_rps"] == pytest.approx(2 * document["soak"]["most_rps"], rel=0.01)
    assert document["soak"]["rss_mb"]


@pytest.mark.parametrize("kind", [[], ["--ladder"], ["--saturate"]])
def test_plots_are_written(kind, bundle, capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from benchmarks.load import ladder

    monkeypatch.setattr(ladder, "SEARCH", (1, 2))
    steps = ["--seconds", "0.1", "--warm-up", "0.02", "--lengths", "4"]
    path = tmp_path / "plot.png"
    assert bench(capsys, *kind, *steps, "--plot", str(path), "--json", "--bundle", bundle)[0] == 0
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seconds", "0"], "--seconds: expected a number > 0"),
        (["--seconds", "nan"], "--seconds: expected a finite number"),
        (["--seconds", "1e6"], "--seconds: expected at most 3600"),
        (["--warm-up", "-1"], "--warm-up: expected a number > 0"),
        (["--callers", "0"], "--callers: expected a whole number >= 1"),
        (["--rate", "-5"], "--rate: expected a number > 0"),
        (["--rate", "1e9"], "a run keeps at most"),
        (["--burst", "0"], "--burst: expected a whole number >= 1"),
        (["--arrivals", "bursts"], "--arrivals: bursts needs --rate"),
        (["--slo", "p99<5ms"], "--slo: expected"),
        (["--slo", "tokenise.p99=5ms", "--seconds", "0.1"], "no stage 'tokenise'"),
        (["--lengths", "a"], "--lengths: expected whole numbers"),
        (["--lengths", "0"], "--lengths: expected whole numbers >= 1"),
        (["--mix", "/nonexistent.jsonl"], "--mix: cannot read"),
        (["--seed", "-1"], "--seed: expected a whole number >= 0"),
        (["--tau", "2"], "tau: expected a value in"),
        (["--compare", "/nonexistent.jsonl"], "--compare: cannot read"),
        (["--tier", "onnx"], "--tier: 'onnx' is for a transformer"),
        (["soak", "--threads", "2"], "--threads: 2 is for a transformer"),
        (["--against", "tier=onnx"], "--tier: 'onnx' is for a transformer"),
        (["--against", "isa"], "--against: expected target=NAME"),
        (["--against", "target=ghost"], "--against: expected target=NAME"),
        (["--against", "isa=scalar", "--peers", "all"], "--peers: give either --against or --peers"),
        (["--peers", "ghost"], "--peers: expected names of"),
        (["--ladder", "--saturate"], "--ladder: give either"),
        (["--ladder", "--rate", "5"], "--rate: is of one case"),
        (["--record", "/nonexistent/x.jsonl"], "--record: expected a file to write"),
        (["soak", "--minutes", "0"], "--minutes: expected a number > 0"),
        (["soak", "--minutes", "600"], "--minutes: expected at most 3600 s"),
        (["soak", "--load", "1.5"], "--load: expected a share"),
        (["soak", "--rate", "0"], "--rate: expected a number > 0"),
        (["compare", "/nonexistent.jsonl", "/nonexistent.jsonl"], "BASE: cannot read"),
    ],
)
def test_a_bad_argument_is_named_before_or_instead_of_a_run(arguments, named, bundle, capsys):
    given = arguments if "compare" in arguments else [*arguments, "--bundle", bundle]
    code, out, err = bench(capsys, *given)
    assert code == 1
    assert named in err
    assert out == ""


def test_the_command_says_where_a_serving_engine_is_missing(bundle, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipr_engine.serving", None)
    code, _, err = bench(capsys, "--target", "async", "--bundle", bundle)
    assert code == 1
    assert "no ipr_engine.serving" in err
