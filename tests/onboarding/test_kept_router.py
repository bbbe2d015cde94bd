"""What came of a project stands while its inputs and its bundle are the same, and no longer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ipr_engine.bundle import Bundle, activate
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding.kept_router import KEPT, keep, let_go, made_of, read_kept, refuse_changed
from tests.support.bundles import make_siblings

FACTS = {"tau": 0.2}


@pytest.fixture
def plan(tmp_path):
    out = tmp_path / "collected"
    out.mkdir()
    for name in ("prompts.jsonl", "outcomes.jsonl", "candidates.json", "ledger.sqlite"):
        (out / name).write_text(name)
    return SimpleNamespace(out_folder=out, seed=0)


@pytest.fixture
def project(plan, tmp_path):
    """A project with a kept router, its report, and another bundle beside its own."""
    current, _ = make_siblings(tmp_path, 2)
    activate(current.parent, current.name)
    (tmp_path / "report.md").write_text("report")
    split = tmp_path / "split"
    split.mkdir()
    (split / "prompts.jsonl").write_text("with splits")
    keep(tmp_path, made_of(plan, 0.2), current.name, split, FACTS)
    return SimpleNamespace(folder=tmp_path, root=current.parent, split=split, report=tmp_path / "report.md")


def kept(project, digest):
    return read_kept(project.folder, digest, project.root, project.split, project.report)


def test_it_stands_while_nothing_that_it_was_made_of_changes(project, plan):
    (plan.out_folder / "ledger.sqlite").write_text("of calls, which tables hold")
    assert kept(project, made_of(plan, 0.2)) == FACTS


@pytest.mark.parametrize("name", ["prompts.jsonl", "outcomes.jsonl", "candidates.json"])
def test_another_table_or_price_ends_it(project, plan, name):
    (plan.out_folder / name).write_text("changed")
    assert kept(project, made_of(plan, 0.2)) is None


def test_another_tau_or_seed_ends_it(project, plan):
    assert kept(project, made_of(plan, 0.3)) is None
    plan.seed = 1
    assert kept(project, made_of(plan, 0.2)) is None


def test_another_current_bundle_ends_it(project, plan):
    current = Bundle.load(project.root).hash
    [other] = [one for one in project.root.iterdir() if one.is_dir() and one.name != current]
    activate(project.root, other.name)
    assert kept(project, made_of(plan, 0.2)) is None


def test_a_bundle_that_another_command_changed_is_not_replaced_unasked(project):
    made = Bundle.load(project.root)
    [other] = [one for one in project.root.iterdir() if one.is_dir() and one.name != made.hash]
    refuse_changed(project.folder, project.root, made.names)
    activate(project.root, other.name)
    names = Bundle.load(project.root).names
    with pytest.raises(InvalidInputError, match=f"{other.name[:12]}, is not the one that .* made, {made.hash[:12]}"):
        refuse_changed(project.folder, project.root, names)
    with pytest.raises(InvalidInputError, match=f"replaced, and '{names[0]}' with it; name another folder with --out"):
        refuse_changed(project.folder, project.root, names[1:])
    let_go(project.folder)
    refuse_changed(project.folder, project.root, names)


def test_figures_that_somebody_changed_are_made_anew(project, plan):
    file = project.folder / KEPT
    for changed in ({}, {"tau": 0.3}, {**FACTS, "needed": 3}):
        file.write_text(json.dumps({**json.loads(file.read_text()), "router": changed}))
        assert kept(project, made_of(plan, 0.2)) is None


@pytest.mark.parametrize("text", [None, "{", "[]", "3", '{"made_of": 1}', "[" * 100_000])
def test_what_is_damaged_or_gone_is_made_anew(project, plan, text):
    file = project.folder / KEPT
    file.unlink() if text is None else file.write_text(text)
    assert kept(project, made_of(plan, 0.2)) is None


def test_another_split_or_none_is_made_anew(project, plan):
    table = project.split / "prompts.jsonl"
    table.write_text("with other splits")
    assert kept(project, made_of(plan, 0.2)) is None
    table.unlink()
    assert kept(project, made_of(plan, 0.2)) is None
    project.split.rmdir()
    assert kept(project, made_of(plan, 0.2)) is None


def test_a_report_that_is_gone_is_made_anew(project, plan):
    project.report.unlink()
    assert kept(project, made_of(plan, 0.2)) is None
