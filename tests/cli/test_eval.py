"""ipr eval: names mapped, decisions the engine's own, files written, clean stdout, errors told."""

import json

import numpy as np
import pytest

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.cli import main
from ipr_engine.cli.eval import _routers
from ipr_engine.errors import InvalidInputError
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle
from tests.support.training_data import write_source

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    work = tmp_path_factory.mktemp("eval")
    bundle = make_bundle(work / "bundle", models=4, dim=16)
    source = write_source(work / "made", ["alpha/large", "b", "gamma/small"], PROMPTS)
    return str(bundle), str(source)


def run(paths, *more):
    return main(["eval", "--bundle", paths[0], "--outcomes", paths[1], "--draws", "20", *more])


def test_a_report_and_plots_are_written_and_nothing_goes_to_stdout(paths, capsys, tmp_path):
    assert run(paths, "--map", "beta/mid=b", "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "not in the source, left out: delta/tiny" in captured.err
    assert (
        "ipr eval: No statement about cost at equal quality can be made: 80 different questions are too few"
        in captured.err
    )
    names = {path.name for path in tmp_path.iterdir()}
    plots = {"quality_cost.png", "areas.png", "reliability.png", "tau.png", "support.png"}
    assert names == {"report.md", "report.json"} | plots
    text = (tmp_path / "report.md").read_text()
    assert "ipr eval --outcomes made" in text
    assert not any(prompt in text for prompt in PROMPTS)
    assert str(paths[1]) not in text


def test_json_goes_to_stdout_and_its_decisions_are_the_engines(paths, capsys):
    assert run(paths, "--map", "beta/mid=b", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in figures["candidates"]] == ["alpha/large", "beta/mid", "gamma/small"]
    from ipr_engine import Engine
    from ipr_engine.data import MEASURES, load_outcomes

    engine = Engine.load(paths[0])
    rows = load_outcomes(paths[1], models=["alpha/large", "b", "gamma/small"], split="test").complete(measures=MEASURES)
    decisions = engine.route_many(list(rows.prompts), tau=0.2, allowed=list(NAMES[:3]))
    got = rows.quality[np.arange(len(rows.prompts)), decisions.index]
    shown = next(t for t in figures["tau"] if abs(t["tau"] - 0.2) < 1e-9)
    assert shown["quality"]["value"] == pytest.approx(got.mean())
    assert shown["predicted_cost_usd"] == pytest.approx(decisions.cost_usd.mean())


def test_without_out_the_report_is_stdout(paths, capsys):
    assert run(paths, "--family", "alpha", "--family", "gamma", "--validation", "train") == 0
    out = capsys.readouterr().out
    assert out.startswith("# Evaluation: test bundle, 2 candidates, on made")
    assert "operating points chosen on: train split" in out


def test_heads_without_tokens_are_priced_at_the_sources_means(paths, tmp_path, capsys):
    bundle = make_bundle(tmp_path, models=3, dim=16, tokens=False)
    assert run((str(bundle), paths[1]), "--json") == 0
    assert json.loads(capsys.readouterr().out)["about"]["output tokens"].startswith("the source's means")


def test_the_stated_command_names_the_key_without_its_place(paths, tmp_path, capsys):
    OwnerKey.create(tmp_path / "owner.key")
    assert run(paths, "--map", "beta/mid=b", "--key", str(tmp_path / "owner.key"), "--json") == 0
    command = json.loads(capsys.readouterr().out)["about"]["command"]
    assert "--key owner.key" in command
    assert str(tmp_path) not in command


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--map", "nobody=b"], "--map: expected NAME=SOURCE"),
        (["--allow", "delta/tiny"], "no candidate is in the source"),
        (["--allow", "nobody"], "allowed: unknown 'nobody'"),
        (["--key", "/nowhere/owner.key"], "key: cannot read /nowhere/owner.key"),
        (["--draws", "0"], "--draws: expected at least 1"),
        (["--outcomes", "/nowhere"], "source: expected a folder with prompts.* and outcomes.*, got /nowhere"),
    ],
)
def test_an_error_goes_to_stderr_with_exit_code_1(paths, capsys, more, message):
    assert run(paths, *more) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


LITELLM = "LiteLLM heuristic_v2=ipr_engine.evaluation.other_routers:litellm_heuristic_v2"


def test_without_litellm_asking_for_it_says_what_to_install(paths, capsys):
    try:
        import litellm  # noqa: F401
    except ImportError:
        assert run(paths, "--router", LITELLM) == 1
        assert "pip install 'litellm'" in capsys.readouterr().err
    else:
        assert run(paths, "--router", LITELLM, "--json") == 0
        assert "LiteLLM heuristic_v2" in capsys.readouterr().out


def test_routers_named_by_their_place_stand_in_report_and_plots_and_leave_stdout_clean(paths, capsys, tmp_path):
    named = ["--router", "length=tests.support.routers:by_length", "--router", "tests.support.routers:printing"]
    assert run(paths, *named, "--json", "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    lines = {c["name"]: c for c in json.loads(captured.out)["contenders"]}
    assert lines["length"]["kind"] == lines["printing"]["kind"] == "other router"
    assert lines["length"]["area"] == lines["printing"]["area"]
    assert "fitted\n" in captured.err  # what it prints
    text = (tmp_path / "report.md").read_text()
    assert "- other routers: length, printing; fitted on training outcomes" in text
    assert "--router length=tests.support.routers:by_length --router tests.support.routers:printing" in text
    assert (tmp_path / "quality_cost.png").stat().st_size > 20_000


def test_a_router_without_a_name_is_called_as_its_function_or_as_its_module():
    place = "tests.support.routers"
    assert list(_routers([f"{place}:lottery", f"a={place}:by_length"])) == ["lottery", "a"]
    twice = [f"{place}:by_length", "tests.support.routers_too:by_length"]
    with pytest.raises(InvalidInputError, match=r"--router tests\.support\.routers_too:by_length: there is no module"):
        _routers(twice)


def test_few_draws_are_warned_of(paths, capsys):
    assert run(paths, "--map", "beta/mid=nobody") == 1
    assert "--draws 20: the ends of intervals are rough below 100 draws" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["nowhere"], "--router: expected module:function"),
        (["=tests.support.routers:by_length"], "--router: no name before ="),
        (["a=tests.support.routers:by_length", "a=tests.support.routers:printing"], "--router: 'a' is named twice"),
        (["oracle=nowhere:by_length"], "--router: 'oracle' is the name of another line"),
        (["x=tests.support.routers:raising"], "--router x: while routing: KeyError in routers.py"),
    ],
)
def test_a_router_that_cannot_be_judged_is_told_with_exit_code_1(paths, capsys, items, message):
    assert run(paths, *(part for item in items for part in ("--router", item))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"ipr eval: {message}" in captured.err
    assert not any(prompt in captured.err for prompt in PROMPTS)


def test_other_sources_stand_beside_in_error_against_support(paths, capsys, tmp_path):
    other = write_source(tmp_path / "elsewhere", ["alpha/large", "b2"], PROMPTS, rows_per_split=30)
    assert run(paths, "--map", "beta/mid=b", "--map", "beta/mid=b2", "--also", str(other)) == 0
    out = capsys.readouterr().out
    assert "--also elsewhere --map beta/mid=b --map beta/mid=b2" in out
    assert "| **made**, 3 candidates | " in out
    assert "| **elsewhere**, 2 candidates | " in out


def test_samples_tell_how_much_of_the_outcomes_is_luck(paths, capsys, tmp_path):
    from ipr_engine.data import load_outcomes
    from ipr_engine.data.repeated_scores import SAMPLE_COLUMNS
    from ipr_engine.data.table_stream import table_stream

    rows = load_outcomes(paths[1], models=["alpha/large", "b"])
    drawn = np.random.default_rng(5).random((len(rows.prompt_ids), 2, 2)) < 0.5
    cells = [
        (prompt, name, sample, float(drawn[r, m, sample]))
        for r, prompt in enumerate(rows.prompt_ids)
        for m, name in enumerate(rows.models)
        for sample in range(2)
    ]
    with table_stream(tmp_path / "samples.csv", SAMPLE_COLUMNS) as table:
        table.write(dict(zip(SAMPLE_COLUMNS, map(list, zip(*cells, strict=True)), strict=True)))
    allowed = ["--allow", "alpha/large", "--allow", "beta/mid", "--map", "beta/mid=b"]
    assert run(paths, *allowed, "--samples", str(tmp_path), "--json") == 0
    noise = json.loads(capsys.readouterr().out)["label_noise"]
    assert noise["prompts"] == len(rows.of_split("test"))
    assert noise["brier_floor"] == pytest.approx(noise["within"] / 2, rel=1e-5)
    assert noise["within"] == pytest.approx(0.25, abs=0.05)
    assert run(paths, *allowed, "--samples", str(tmp_path)) == 0
    assert "## Luck in the outcomes" in capsys.readouterr().out
    assert run(paths, "--map", "beta/mid=b", "--samples", str(tmp_path)) == 1
    assert "expected samples of 'gamma/small'" in capsys.readouterr().err


def test_edits_are_told_and_the_gate_has_an_exit_code_of_its_own(paths, capsys, monkeypatch):
    assert run(paths, "--map", "beta/mid=b", "--edits") == 0
    captured = capsys.readouterr()
    assert "## Robust to edits" in captured.out
    assert "--edits" in captured.out.split("Written by")[1].split("`")[1]
    monkeypatch.setattr("ipr_engine.evaluation.robust_to_edits.RAISED", -1.0)  # so that every edit fails
    assert run(paths, "--map", "beta/mid=b", "--gate", "--json") == 5
    captured = capsys.readouterr()
    assert json.loads(captured.out)["edits"]["limits"]["raised"] == -1.0
    assert (
        "ipr eval: Of 11 ways to write the test prompts otherwise the decisions withstand 0; they fail under"
        in captured.err
    )
