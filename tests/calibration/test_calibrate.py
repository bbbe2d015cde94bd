"""calibrate: a sample to a map, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, Price
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import Bundle, with_calibrations, with_prices
from ipr_engine.bundle.calibration import CERTAIN, CERTIFIED, INSUFFICIENT
from ipr_engine.bundle.calibration_entry import parse_map
from ipr_engine.bundle.fields import Field
from ipr_engine.errors import BundleError, InvalidInputError, KeyMismatchError
from tests.support.calibration_data import calibrate, make_engine, make_outcomes


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(engine, path data, sample): the engine's heads were fitted on the path's prompts."""
    folder = tmp_path_factory.mktemp("scene")
    plain = make_engine(folder / "plain")
    path_data = make_outcomes(plain, "train", 500)
    engine = make_engine(folder, fitted=path_data)
    return engine, path_data, make_outcomes(plain, "calibration", 700)


@pytest.fixture(scope="module")
def made(scene):
    engine, path_data, sample = scene
    return calibrate(engine, sample, path_data, points=12)


def test_a_map_is_a_step_function_from_the_best_to_the_cheapest_single(made):
    assert made.points[0].allowed == (made.best,)
    assert made.points[-1].allowed == (made.cheapest,)
    assert made.knots[0].level == 0
    assert made.knots[0].status in (CERTAIN, CERTIFIED)
    assert made.knots[-1].level == 1.0
    assert made.knots[-1].status in (CERTAIN, CERTIFIED)
    for values in ([p.worth for p in made.points], [made.points[k.point].cost_usd for k in made.knots]):
        assert all(a >= b for a, b in zip(values, values[1:], strict=False))
    for knots in (made.knots, made.shares):
        assert all(a.point <= b.point for a, b in zip(knots, knots[1:], strict=False))
    assert any(0 < knot.point < len(made.points) - 1 and knot.status == CERTIFIED for knot in made.knots)
    assert all(point.quality_lower <= point.quality for point in made.points)


def test_a_map_survives_json(made):
    assert parse_map(Field(made.to_json(), "x: ", "")) == made


def test_the_same_sample_gives_the_same_map(scene, made):
    engine, path_data, sample = scene
    assert calibrate(engine, sample, path_data, points=12) == made


def test_points_are_decided_by_the_engine(scene, made):
    engine, _, sample = scene
    point = made.points[3]
    decisions = engine.route_many(list(sample.prompts), tau=1.0, worth=point.worth)
    assert float(decisions.cost_usd.astype(np.float64).mean()) == pytest.approx(point.cost_usd)
    assert sample.quality[np.arange(len(sample)), decisions.index].mean() == pytest.approx(point.quality)


def test_a_tiny_sample_certifies_only_what_is_certain_and_says_so(scene):
    engine, path_data, sample = scene
    tiny = calibrate(engine, sample.take(np.arange(4)), path_data, points=12)
    assert {knot.status for knot in tiny.knots[1:-1]} == {INSUFFICIENT}
    assert {knot.point for knot in tiny.knots[:-1]} == {0}


def test_simultaneous_certifies_less(scene, made):
    engine, path_data, sample = scene
    joint = calibrate(engine, sample, path_data, points=12, simultaneous=True)
    assert joint.simultaneous
    assert sum(k.point for k in joint.knots) < sum(k.point for k in made.knots)


def test_a_family_has_a_map_of_its_own(scene):
    engine, path_data, sample = scene
    with pytest.raises(InvalidInputError, match="at least two to choose between, got beta/mid"):
        calibrate(engine, sample, path_data, family="beta")
    two = calibrate(engine, sample, path_data, candidates=["alpha/large", "delta/tiny"])
    assert two.candidates == ("alpha/large", "delta/tiny")
    assert not two.whole


def test_overlap_with_the_fitting_prompts_is_refused_with_its_number(scene):
    engine, path_data, sample = scene
    other = replace(path_data, prompt_ids=tuple(f"other:{i}" for i in range(len(path_data))))  # other ids, same prompts
    with pytest.raises(
        InvalidInputError, match=r"500 of 500 calibration prompts .* are among those the heads were fitted on"
    ):
        calibrate(engine, other, sample)
    with pytest.raises(InvalidInputError, match=r"700 of 700 calibration prompts .* among those the path is fitted on"):
        calibrate(engine, sample, sample)


def test_overlap_is_left_out_on_request(scene):
    engine, path_data, sample = scene
    prompts = (path_data.prompts[0].upper() + "!", *sample.prompts[1:])  # the same letters and digits
    mixed = replace(sample, prompts=prompts)
    with pytest.raises(InvalidInputError, match=r"1 of 700 calibration prompts"):
        calibrate(engine, mixed, path_data)
    assert calibrate(engine, mixed, path_data, points=4, drop_overlap=True).sample.prompts == 699


def test_hashes_under_a_key_are_checked_with_it_and_another_key_is_an_error_not_an_empty_overlap(tmp_path, scene, made):
    _, path_data, sample = scene
    key, other = OwnerKey(bytes(32)), OwnerKey(bytes(range(32)))
    engine = make_engine(tmp_path, fitted=path_data, key=key)
    renamed = replace(path_data, prompt_ids=tuple(f"other:{i}" for i in range(len(path_data))))
    with pytest.raises(InvalidInputError, match=r"500 of 500 calibration prompts"):
        calibrate(engine, renamed, sample, key=[other, key])
    with pytest.raises(KeyMismatchError, match=f"need the key of id {key.id}, got that of id {other.id}"):
        calibrate(engine, sample, path_data, key=other)
    with pytest.raises(KeyMismatchError, match="got none"):
        calibrate(engine, sample, path_data)
    assert calibrate(engine, sample, path_data, points=4, stated=True).sample.disjoint == "stated"
    (engine.bundle.path.parent / "owner.key").write_text(f"{bytes(32).hex()}\n")
    assert calibrate(engine, sample, path_data, points=12) == made


def test_a_bundle_without_prompt_hashes_needs_the_callers_word(tmp_path, scene):
    _, path_data, sample = scene
    engine = make_engine(tmp_path)
    with pytest.raises(InvalidInputError, match="no hashes of its fitting prompts"):
        calibrate(engine, sample, path_data)
    assert calibrate(engine, sample, path_data, points=4, stated=True).sample.disjoint == "stated"


def test_a_missing_candidate_is_named(scene):
    engine, path_data, sample = scene
    with pytest.raises(InvalidInputError, match="no outcomes of 'delta/tiny' in made"):
        calibrate(engine, sample.select(sample.models[:3]), path_data)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"risk": 0.0}, "risk: expected a number above 0"),
        ({"risk": 0.9}, "risk: expected a number above 0 and at most 0.5"),
        ({"test": "hope"}, "test: expected one of target"),
        ({"points": 0}, "points, seed: expected an int >= 1"),
        ({"taus": (0.5, 1.5)}, "taus, shares: expected values in"),
        ({"candidates": ["nobody"]}, "allowed: unknown 'nobody'"),
    ],
)
def test_bad_arguments_are_named(scene, terms, message):
    engine, path_data, sample = scene
    with pytest.raises(InvalidInputError, match=message):
        calibrate(engine, sample, path_data, **terms)


def test_a_price_of_zero_is_refused(scene):
    engine, path_data, sample = scene
    free = dict(engine.bundle.prices.prices) | {
        "delta/tiny": Price(input_usd_per_1m=0.0, output_usd_per_1m=0.0, basis="free")
    }
    folder = with_prices(engine.bundle, replace(engine.bundle.prices, prices=free), activate=False)
    with pytest.raises(InvalidInputError, match="prices: expected a price above 0 of every candidate, 'delta/tiny'"):
        calibrate(Engine.load(folder), sample, path_data)


def test_where_the_best_is_also_the_cheapest_no_map_is_made(scene):
    engine, path_data, sample = scene
    prices = dict(engine.bundle.prices.prices)
    prices["alpha/large"] = Price(input_usd_per_1m=0.01, output_usd_per_1m=0.01, basis="cheap")
    folder = with_prices(engine.bundle, replace(engine.bundle.prices, prices=prices), activate=False)
    good = replace(path_data, quality=np.tile([1.0, 0.0, 0.0, 0.0], (len(path_data), 1)))
    with pytest.raises(InvalidInputError, match="nothing can be saved"):
        calibrate(Engine.load(folder), sample, good)


def test_a_bundle_carries_maps_and_shares_its_files(scene, made):
    engine = scene[0]
    folder = with_calibrations(engine.bundle, [made], activate=False)
    loaded = Bundle.load(folder)
    assert loaded.calibrations == (made,)
    heads = next(engine.bundle.path.glob("heads/static.safetensors"))
    assert (folder / "heads/static.safetensors").samefile(heads)
    again = Bundle.load(with_calibrations(loaded, [replace(made, risk=0.2)], activate=False))
    assert [m.risk for m in again.calibrations] == [0.2]  # the map of the same set is replaced


def test_two_maps_of_one_set_are_refused(scene, made):
    with pytest.raises(BundleError, match="distinct names"):
        with_calibrations(scene[0].bundle, [made, made], activate=False)


def backwards(document):
    document["knots"][3]["point"], document["knots"][-2]["point"] = len(document["points"]) - 1, 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (backwards, "never go back"),
        (lambda d: d["points"][2].update(worth=1e9), "worth that never rises"),
        (lambda d: d["points"][d["knots"][-1]["point"]].update(cost_usd=9.0), "cost_usd that never rises"),
        (lambda d: d["knots"].reverse(), "the first knot at 0"),
        (lambda d: d["knots"].pop(), "the last knot at tau 1"),
        (lambda d: d["knots"][0].update(status=INSUFFICIENT), "always reachable"),
        (lambda d: d["points"][0].update(allowed=["nobody"]), "one of"),
        (lambda d: d.update(best="nobody"), "one of"),
        (lambda d: d["knots"][1].update(point=99), "an integer from 0"),
        (lambda d: d.pop("risk"), "this key"),
        (lambda d: d["sample"].update(support=[0.5]), "21 quantiles"),
    ],
)
def test_a_map_that_is_damaged_or_not_monotone_is_refused(made, damage, message):
    document = made.to_json()
    damage(document)
    with pytest.raises(BundleError, match=message):
        parse_map(Field(document, "bundle.json: ", "calibrations[0]"))


def test_a_map_that_is_not_monotone_is_not_written(scene, made):
    engine = scene[0]
    back = (made.knots[0], *(replace(knot, point=len(made.points) - 1 - knot.point) for knot in made.knots[1:]))
    before = sorted(engine.bundle.path.parent.iterdir())
    with pytest.raises(BundleError, match="a map is monotone"):
        with_calibrations(engine.bundle, [replace(made, knots=back)])
    assert sorted(engine.bundle.path.parent.iterdir()) == before
