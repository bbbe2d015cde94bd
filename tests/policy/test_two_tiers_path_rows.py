"""`two_tiers` joins the path rows of two bundles where they are of the same prompts, and says why where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.bundle.fitted_entries import HeadsSource, heads_sha256
from ipr_engine.bundle.two_tiers import encoder_source
from ipr_engine.cli import main
from ipr_engine.errors import PathMismatchError
from tests.support.path_rows import assert_equal_rows, make_path_rows
from tests.support.two_tier_bundles import join, make_tiers


def with_rows(bundle: Bundle, folder: Path, *, settings: dict[str, Any] | None = None, **shape: Any) -> Bundle:
    """The bundle written again with path rows of its heads. Equal shapes and seeds give equal outcomes and bills."""
    heads = bundle.quality_heads
    source = HeadsSource(
        id=heads.id,
        encoder=heads.encoder,
        outputs=heads.outputs,
        activation=heads.activation,
        candidates=heads.candidates,
        rule_constants=heads.rule_constants,
        fitted_on=replace(heads.fitted_on, prompt_ids_sha256=shape.pop("prompts", "0") * 64),
        tensors=heads.tensors,
    )
    predicted = make_path_rows(bundle.names, seed=len(heads.id))
    shared = make_path_rows(bundle.names, **shape)
    rows = replace(predicted, outcome=shared.outcome, billed_tokens=shared.billed_tokens, heads=(heads_sha256(source),))
    return Bundle.load(
        write_bundle(
            folder / heads.id,
            BundleParts(
                name=bundle.name,
                created=bundle.created,
                candidates=bundle.candidates,
                encoders=[encoder_source(spec, spec.id, spec.parts) for spec in bundle.encoders],
                heads=[source],
                prices=bundle.prices,
                support=bundle.support,
                path_rows=rows,
                provenance={} if settings is None else {"settings": settings},
            ),
        )
    )


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Bundle, Bundle]:
    return make_tiers(tmp_path / "plain")


def test_both_tiers_keep_their_predictions_of_the_same_rows(plain: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    first, second = (with_rows(tier, tmp_path, settings={"seed": 3}) for tier in plain)
    joined = join(tmp_path, (first, second))
    rows = joined.path_rows
    assert rows.heads == (joined.quality_heads.sha256, joined.escalation_heads.sha256)
    assert_equal_rows(replace(rows, again_quality=None, again_tokens_out=None), first.path_rows)
    assert rows.again_quality.tobytes() == second.path_rows.quality.tobytes()
    assert rows.again_tokens_out.tobytes() == second.path_rows.tokens_out.tobytes()
    assert "path_rows" not in joined.provenance


def test_the_second_tiers_columns_follow_the_first_ones_order(plain: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    first = with_rows(plain[0], tmp_path)
    other = replace(plain[1], candidates=plain[1].candidates[::-1])
    second = with_rows(other, tmp_path)
    rows = replace(second.path_rows.of(second.names), outcome=first.path_rows.of(second.names).outcome)
    second = replace(second, path_rows=rows)
    joined = join(tmp_path, (first, second))
    assert joined.names == first.names
    assert joined.path_rows.again_quality.tobytes() == rows.of(first.names).quality.tobytes()


ALONE = [
    ({"prompts": "1"}, None, "not fitted on the same prompts"),
    ({"settings": {"seed": 4}}, {"seed": 3}, "seeds 3 and 4"),
    ({"seed": 9}, None, "the same outcomes in the same order"),
    ({"rows": 39}, None, "the same outcomes in the same order"),
]


@pytest.mark.parametrize(("changed", "settings", "why"), ALONE)
def test_other_rows_leave_those_of_the_first_tier_alone(
    plain: tuple[Bundle, Bundle],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    settings: dict[str, Any] | None,
    why: str,
) -> None:
    first = with_rows(plain[0], tmp_path, settings=settings)
    shape = {"settings": settings, **changed}
    if "rows" in changed:
        second = replace(plain[1], path_rows=make_path_rows(plain[1].names, rows=39))
        second = replace(second, heads=(replace(second.heads[0], fitted_on=first.heads[0].fitted_on),))
    else:
        second = with_rows(plain[1], tmp_path, **shape)
    joined = join(tmp_path, (first, second))
    assert_equal_rows(joined.path_rows, first.path_rows)
    assert joined.path_rows.heads == (joined.quality_heads.sha256,)
    assert why in joined.provenance["path_rows"]
    assert main(["info", "--bundle", str(joined.path)]) == 0
    assert "of the first tier alone" in capsys.readouterr().out


def test_a_second_bundle_without_rows_leaves_those_of_the_first(plain: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    first = with_rows(plain[0], tmp_path)
    joined = join(tmp_path, (first, plain[1]))
    assert_equal_rows(joined.path_rows, first.path_rows)
    assert joined.provenance["path_rows"] == "the second bundle has no path rows"
    assert join(tmp_path / "other", (plain[0], first)).path_rows is None


def test_a_candidate_removed_leaves_both_tiers(plain: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    joined = join(tmp_path, tuple(with_rows(tier, tmp_path) for tier in plain))  # type: ignore[arg-type]
    left = [name for name in joined.names if name != joined.names[1]]
    after = Bundle.load(without_candidate(joined, joined.names[1]))
    assert_equal_rows(after.path_rows, joined.path_rows.of(left))
    assert after.path_rows.heads == (after.quality_heads.sha256, after.escalation_heads.sha256)


def test_the_heads_of_the_second_tier_are_held_against_theirs(plain: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    joined = join(tmp_path, tuple(with_rows(tier, tmp_path) for tier in plain))  # type: ignore[arg-type]
    manifest = json.loads((joined.path / "bundle.json").read_text())
    manifest["path_rows"]["heads"].reverse()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in joined.path.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(joined.path)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(joined.path)).write_bytes(file.read_bytes())
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(PathMismatchError, match="heads that decide"):
        Bundle.load(copy)


def test_info_and_escalate_say_what_the_rows_cover(
    plain: tuple[Bundle, Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = [str(with_rows(tier, tmp_path).path) for tier in plain]
    assert main(["escalate", *tiers, "--gap", "0.1", "--out", str(tmp_path / "out")]) == 0
    assert "40 rows of fitting prompts, 4 of 4 candidates; of both tiers" in capsys.readouterr().out
    assert main(["info", "--bundle", str(tmp_path / "out"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["path_rows"]
    assert (facts["rows"], facts["tiers"], facts["without_rows"], facts["first_tier_alone"]) == (40, 2, [], None)
    assert main(["info", "--bundle", str(plain[0].path)]) == 0
    assert "tau's path: no rows" in capsys.readouterr().out
