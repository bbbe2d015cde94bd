"""Two bundles joined: what is kept of each, what is refused, and what editing and calibrating the result does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    ConcatenatedSource,
    EncoderSource,
    EscalationSpec,
    with_calibrations,
    with_extra_files,
    with_prices,
    write_bundle,
)
from ipr_engine.bundle.edit import NewCandidate, with_candidate, without_candidate
from ipr_engine.bundle.origin import prior_of
from ipr_engine.bundle.reliability import RELIABILITY, read_reliability, reliability_bins, reliability_bytes
from ipr_engine.cli import main
from ipr_engine.data import prompt_hashes
from ipr_engine.errors import EncoderMismatchError, InvalidInputError
from ipr_engine.evaluation.embedded import embed_for
from tests.support.bundles import bundle_parts, make_tensors
from tests.support.calibration_data import calibrate, make_outcomes, make_source
from tests.support.decisions import same_row
from tests.support.two_tier_bundles import join, make_prompts, make_tiers

PROMPTS = make_prompts(40)


@pytest.fixture(scope="module")
def tiers(tmp_path_factory):
    return make_tiers(tmp_path_factory.mktemp("tiers"), models=3)


@pytest.fixture(scope="module")
def joined(tiers, tmp_path_factory):
    return join(tmp_path_factory.mktemp("joined"), tiers, gap=0.05)


def test_each_head_keeps_its_tensors_and_its_encoder(tiers, joined):
    first, second = tiers
    for heads, own in ((joined.quality_heads, first), (joined.escalation_heads, second)):
        assert joined.encoder(heads.encoder).identity == own.encoder(own.quality_heads.encoder).identity
        assert {n: t.tobytes() for n, t in heads.tensors.items()} == {
            n: t.tobytes() for n, t in own.quality_heads.tensors.items()
        }
    assert (joined.escalation.heads, joined.escalation.gap) == ("second", 0.05)
    assert (joined.names, joined.prices.prices) == (first.names, first.prices.prices)
    assert [joined.provenance[which]["hash"] for which in ("first", "second")] == [first.hash, second.hash]


def test_the_same_two_bundles_make_the_same_bundle(tiers, joined, tmp_path):
    assert join(tmp_path, tiers, gap=0.05).hash == joined.hash
    assert join(tmp_path, tiers, gap=0.06).hash != joined.hash


def test_an_encoder_of_both_tiers_is_kept_once_and_loaded_once(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3)
    first = Bundle.load(write_bundle(tmp_path / "one", BundleParts(**parts)))
    other = bundle_parts(tmp_path / "other", models=3, dim=8, seed=3)["encoders"][0]
    side = ConcatenatedSource(id="both", parts=("static", "small"))
    heads = replace(parts["heads"][0], encoder="both", tensors=make_tensors(models=3, dim=24))
    encoders = [*parts["encoders"], replace(other, id="small"), side]
    changed = {**parts, "encoders": encoders, "heads": [heads], "support": None}
    second = Bundle.load(write_bundle(tmp_path / "two", BundleParts(**changed)))
    bundle = join(tmp_path, (first, second), gap=10.0)
    assert [(spec.id, spec.kind) for spec in bundle.encoders] == [
        ("static", "static"),
        ("small", "static"),
        ("both", "concatenated"),
    ]
    engine = Engine(bundle)
    assert same_row(engine.route(PROMPTS[0], tau=0.2), Engine(second).route(PROMPTS[0], tau=0.2))


def test_encoders_of_one_id_that_differ_are_both_kept(tmp_path):
    first, second = (
        Bundle.load(
            write_bundle(tmp_path / name, BundleParts(**bundle_parts(tmp_path / "s" / name, dim=dim, support=False)))
        )
        for name, dim in (("one", 16), ("two", 8))
    )
    assert [(spec.id, spec.dim) for spec in join(tmp_path, (first, second)).encoders] == [
        ("static", 16),
        ("static_2", 8),
    ]


def test_bundles_that_do_not_fit_are_refused_by_what_differs(tiers, joined, tmp_path):
    first, second = tiers
    dearer = {**second.prices.prices, second.names[0]: replace(second.prices.prices[second.names[0]], fixed_usd=1.0)}
    priced = Bundle.load(with_prices(second, replace(second.prices, prices=dearer), root=tmp_path / "p"))
    smaller = Bundle.load(without_candidate(second, second.names[0], root=tmp_path / "s"))
    mute = Bundle.load(
        write_bundle(tmp_path / "m", BundleParts(**bundle_parts(tmp_path / "mute", models=3, tokens=False)))
    )
    for other, told in (
        (priced, "cost otherwise; set them"),
        (smaller, f"only one has {first.names[0]}"),
        (mute, "heads that predict quality, tokens as the first ones do, got quality"),
        (joined, "has two tiers already"),
    ):
        with pytest.raises(InvalidInputError, match=f"second: .*{told}"):
            join(tmp_path, (first, other))


def test_heads_of_unequal_outputs_are_no_two_tiers(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3, support=False)
    tensors = make_tensors(models=3, dim=16, tokens=False)
    mute = replace(parts["heads"][0], id="mute", outputs=("quality",), tensors=tensors)
    with pytest.raises(EncoderMismatchError, match=r"escalation\.heads: expected heads with the outputs of 'static'"):
        write_bundle(
            tmp_path / "b",
            BundleParts(
                **{**parts, "heads": [*parts["heads"], mute], "escalation": EscalationSpec(heads="mute", gap=0.1)}
            ),
        )


def test_a_candidate_is_removed_from_both_tiers_and_added_to_neither(joined, tmp_path):
    name = joined.names[1]
    smaller = Engine.load(without_candidate(joined, name, root=tmp_path))
    assert smaller.bundle.escalation == joined.escalation
    assert name not in {*smaller.bundle.quality_heads.candidates, *smaller.bundle.escalation_heads.candidates}
    kept = [n for n in joined.names if n != name]
    whole = Engine(joined)
    for below in (0, np.inf):
        left = smaller.route_many(PROMPTS, tau=0.2, escalate_below=below)
        among = whole.route_many(PROMPTS, tau=0.2, escalate_below=below, allowed=kept)
        assert left.models == among.models
    rows = {n: t[0] for n, t in joined.quality_heads.tensors.items()}
    new = replace(joined.candidates[0], name="new/one")
    price = joined.prices.prices[joined.names[0]]
    with pytest.raises(InvalidInputError, match=r"two tiers.* join them again with `ipr escalate`"):
        with_candidate(joined, NewCandidate(candidate=new, price=price, rows=rows, note={}), root=tmp_path)


def test_realised_quality_is_read_from_the_heads_that_decided(tiers, tmp_path):
    rng = np.random.default_rng(0)
    tables = []
    for bundle, right in zip(tiers, (0.2, 0.9), strict=True):
        bins = reliability_bins(rng.random(100), (rng.random(100) < right).astype(float))
        extra = {RELIABILITY: reliability_bytes({bundle.names[0]: bins})}
        tables.append(Bundle.load(with_extra_files(bundle, extra, root=tmp_path / str(right))))
    bundle = join(tmp_path, tuple(tables), gap=10.0)
    assert [read_reliability(bundle, second=s) for s in (False, True)] == [read_reliability(own) for own in tables]
    engine, name = Engine(bundle), bundle.names[0]
    for below, own in ((0, 0), (np.inf, 1)):
        shown = engine.explain(PROMPTS[0], tau=0.2, escalate_below=below).realised[name]
        assert shown == Engine(tables[own]).explain(PROMPTS[0], tau=0.2).realised[name]
    smaller = Bundle.load(without_candidate(bundle, name, root=tmp_path / "less"))
    assert [read_reliability(smaller, second=s) for s in (False, True)] == [{}, {}]


def knowing(bundle, root, fitted, scale):
    """The bundle with heads that separate candidates, which keep the hashes of their fitting prompts."""
    parts = bundle_parts(root / "sources", models=4, dim=bundle.encoder(bundle.quality_heads.encoder).dim)
    spec = bundle.encoder(bundle.quality_heads.encoder)
    table = EncoderSource(
        id=spec.id, max_tokens=spec.max_tokens, **{k: spec.files[k] for k in ("table", "tokenizer", "config")}
    )
    tensors = dict(parts["heads"][0].tensors)
    tensors |= {"skip": scale * tensors["skip"], "bias": np.linspace(1.5, -0.5, 4).astype(np.float32)}
    hashes = prompt_hashes(fitted.prompts, fitted.question_keys)
    head = replace(parts["heads"][0], id="h", encoder=spec.id, tensors=tensors, prompt_hashes=hashes)
    return Bundle.load(
        write_bundle(root / "b", BundleParts(**{**parts, "encoders": [table], "heads": [head], "support": None}))
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(two-tier bundle, path data, sample), outcomes drawn from what the second heads predict."""
    folder = tmp_path_factory.mktemp("scene")
    bare = make_tiers(folder, models=4)
    truth = Engine(bare[1])
    fitted = make_outcomes(truth, "train", 400)
    pair = tuple(knowing(b, folder / str(i), fitted, 3.0) for i, b in enumerate(bare))
    data = [make_outcomes(Engine(pair[1]), split, 500) for split in ("train", "calibration")]
    return join(folder, pair, gap=0.1), *data


def test_a_map_is_of_what_both_tiers_choose_and_dies_with_the_gap(scene, tmp_path):
    bundle, path_data, sample = scene
    made = calibrate(Engine(bundle), sample, path_data, points=8)
    engine = Engine.load(with_calibrations(bundle, [made], root=tmp_path))
    kept = embed_for(engine, sample.prompts)
    row = np.arange(len(sample.prompts))
    assert any(point.allowed is None for point in made.points)
    for point in made.points:
        allowed = None if point.allowed is None else list(point.allowed)
        routed = engine.route_many(list(sample.prompts), tau=1.0, worth=point.worth, allowed=allowed)
        assert routed.index.tolist() == kept.decide(tau=1.0, worth=point.worth, allowed=allowed).index.tolist()
        assert point.quality == pytest.approx(sample.quality[row, routed.index].mean())
        assert point.cost_usd == pytest.approx(routed.cost_usd.astype(np.float64).mean())
        if point.allowed is None:
            assert 0 < routed.escalated.mean() < 1
    assert engine.policy(tau=0.3, rule="calibrated").calibration.status in ("calibrated", "insufficient_evidence")
    for below in (0, 0.2, np.inf):
        status = engine.policy(tau=0.3, rule="calibrated", escalate_below=below).calibration
        assert status.status == "uncalibrated"
        assert f"escalate_below={below:g} instead of the bundle's 0.1" in status.reason
    assert engine.policy(tau=0.3, rule="calibrated", escalate_below=0.1).calibration.status != "uncalibrated"
    moved = replace(engine.bundle, escalation=replace(bundle.escalation, gap=0.05))
    stale = Engine(moved).policy(tau=0.3, rule="calibrated").calibration
    assert stale.status == "stale"
    assert "heads or the gap between the tiers changed" in stale.reason


def test_points_of_two_tiers_are_certified_while_heads_of_either_read_prompts(scene, tmp_path):
    bundle, path_data, sample = scene
    marked, bare = {"constant": dict.fromkeys(bundle.names, "no better than a mean")}, {}
    for first, second, refused in ((marked, bare, False), (bare, marked, False), (marked, marked, True)):
        joined = {"first": {"provenance": first}, "second": {"provenance": second}}
        engine = Engine(replace(bundle, provenance=marked | joined))
        if not refused:
            assert calibrate(engine, sample, path_data, points=4).sample.prompts == len(sample)
            continue
        with pytest.raises(InvalidInputError, match="every operating point rests on constant heads alone"):
            calibrate(engine, sample, path_data, points=4)


@pytest.mark.parametrize("tier", [0, 1])
def test_a_candidate_is_a_prior_where_either_tier_has_no_outcomes_of_it(tiers, tmp_path, tier):
    name, other = tiers[0].names[:2]
    notes = [{"outcomes": "a table"}, {"outcomes": "a table"}]
    notes[tier] = {"prior_from": [other]}
    noted = [replace(one, provenance={"added": {name: note}}) for one, note in zip(tiers, notes, strict=True)]
    assert prior_of(join(tmp_path, noted), name) == f"prior from {other}"


def test_the_maps_key_covers_both_heads_both_encoders_and_the_gap(scene, tiers):
    bundle = scene[0]
    key, names = bundle.heads_key(bundle.names), bundle.names
    second = bundle.escalation_heads
    other = {**second.tensors, "bias": second.tensors["bias"] + np.float32(1)}
    swapped = [replace(h, tensors=other) if h.id == second.id else h for h in bundle.heads]
    for changed in (
        replace(bundle, escalation=replace(bundle.escalation, gap=0.2)),
        replace(bundle, escalation=None),
        replace(bundle, heads=tuple(swapped)),
        replace(
            bundle,
            encoders=tuple(replace(e, identity="0" * 64) if e.id == second.encoder else e for e in bundle.encoders),
        ),
    ):
        assert changed.heads_key(names) != key
    assert replace(bundle, created="2027-01-01").heads_key(names) == key


def test_prompts_that_either_head_was_fitted_on_are_no_calibration_sample(scene):
    bundle, path_data, _ = scene
    seen = make_outcomes(Engine(bundle), "train", 400)
    with pytest.raises(InvalidInputError, match=r"400 of 400 calibration prompts .* the heads were fitted on"):
        calibrate(
            Engine(bundle), seen, replace(path_data, prompts=tuple(f"{p} x" for p in path_data.prompts)), points=4
        )
    first = bundle.quality_heads.id
    bare = tuple(
        replace(h, fitted_on=replace(h.fitted_on, prompt_hashes=None)) if h.id == first else h for h in bundle.heads
    )
    with pytest.raises(InvalidInputError, match="keeps no hashes"):
        calibrate(Engine(replace(bundle, heads=bare)), scene[2], path_data, points=4)


def test_the_command_line_joins_and_routes_by_either_tier(tiers, tmp_path, capsys):
    paths = [str(tier.path) for tier in tiers]
    assert main(["escalate", *paths, "--gap", "0.05", "--out", str(tmp_path / "root"), "--name", "both", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["gap"], made["first"], made["second"]) == (0.05, tiers[0].hash, tiers[1].hash)
    bundle = ["--bundle", str(tmp_path / "root")]
    for below, second in (("0", False), ("inf", True)):
        assert main(["route", PROMPTS[0], "--json", "--tau", "0.2", "--escalate-below", below, *bundle]) == 0
        assert json.loads(capsys.readouterr().out)["decision"]["escalated"] is second
    assert main(["info", "--json", *bundle]) == 0
    assert json.loads(capsys.readouterr().out)["escalation"] == {"heads": "second", "gap": 0.05}
    assert main(["escalate", *paths, "--gap", "-1", "--out", str(tmp_path / "root")]) == 1
    assert "--gap: expected a value from 0" in capsys.readouterr().err
    assert main(["route", PROMPTS[0], "--escalate-below", "0.1", "--bundle", paths[0]]) == 1
    assert "no second tier" in capsys.readouterr().err


def test_the_command_line_calibrates_both_tiers(scene, tmp_path, capsys):
    bundle, path_data, sample = scene
    source = make_source(tmp_path / "made", path_data, sample)
    arguments = ["--outcomes", str(source), "--split", "calibration", "--bundle", str(bundle.path)]
    assert main(["calibrate", *arguments, "--drop-overlap", "--out", str(tmp_path / "root")]) == 0
    engine = Engine.load(tmp_path / "root")
    assert engine.bundle.escalation == bundle.escalation
    assert engine.calibrations.changed(engine.bundle.calibrations[0]) is None
    assert "calibrate" in capsys.readouterr().err
