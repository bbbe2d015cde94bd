"""Names found whatever their case: exact matches win, and what could mean several is an error that lists them."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine._validate import matched
from ipr_engine.bundle import BundleParts, write_bundle
from tests.support.bundles import bundle_parts


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Two candidates, two families and two features that differ by case alone."""
    folder = tmp_path_factory.mktemp("names")
    parts = bundle_parts(folder, models=4)
    names = ("Acme/One", "acme/one", "Acme/Two", "other")
    families = ("Acme", "acme", "Acme", "Other")
    features = (("Tools",), ("tools",), ("tools", "vision"), ())
    old = [candidate.name for candidate in parts["candidates"]]
    parts["candidates"] = [
        replace(candidate, name=name, family=family, features=own)
        for candidate, name, family, own in zip(parts["candidates"], names, families, features, strict=True)
    ]
    parts["heads"] = [replace(parts["heads"][0], candidates=list(names))]
    prices = {new: parts["prices"].prices[name] for new, name in zip(names, old, strict=True)}
    parts["prices"] = replace(parts["prices"], prices=prices)
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)))


def test_an_exact_match_wins_and_one_that_differs_by_case_is_found():
    assert matched("x", ["B", "a"], ["A", "b", "B"]) == {"B": "B", "a": "A"}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"allowed": ["ACME/ONE"]}, r"allowed: 'ACME/ONE' matches several .*, Acme/One, acme/one; write the one meant"),
        ({"exclude": "ACME/ONE"}, r"exclude: 'ACME/ONE' matches several .* Acme/One, acme/one"),
        ({"prices": {"ACME/ONE": (1, 1)}}, r"prices: 'ACME/ONE' matches several .* Acme/One, acme/one"),
        ({"family": "ACME"}, r"family: 'ACME' matches several .* Acme, acme"),
        ({"requires": "TOOLS"}, r"requires: 'TOOLS' matches several .* Tools, tools"),
        ({"prices": {"ACME/two": (1, 1), "acme/TWO": (2, 2)}}, r"prices: 'ACME/two' and 'acme/TWO' both mean Acme/Two"),
        ({"allowed": ["nobody"]}, r"allowed: unknown 'nobody'; known: Acme/One, Acme/Two, acme/one, other"),
        ({"prices": {3: (1, 1)}}, r"prices: expected a list of names"),
    ],
)
def test_what_could_mean_several_is_refused(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.policy(tau=0.2, **terms)


def test_each_can_still_be_meant(engine):
    assert engine.policy(tau=0.2, allowed=["acme/one"]).allowed == ("acme/one",)
    assert engine.policy(tau=0.2, allowed=["ACME/TWO"]).allowed == ("Acme/Two",)
    assert engine.policy(tau=0.2, family="Acme").allowed == ("Acme/One", "Acme/Two")
    assert engine.policy(tau=0.2, requires="Tools").allowed == ("Acme/One",)
    priced = engine.policy(tau=0.2, prices={"acme/one": (0, 0), "ACME/TWO": (7, 7)}).prices.prices
    assert [priced[name].input_usd_per_1m for name in ("acme/one", "Acme/Two")] == [0, 7]
    assert priced["Acme/One"].input_usd_per_1m > 0


def test_the_answer_does_not_depend_on_the_hash_seed(engine):
    code = (
        "import sys, ipr_engine; e = ipr_engine.Engine.load(sys.argv[1])\n"
        "p = e.policy(tau=0.2, exclude=['ACME/TWO'], prices={'OTHER': (0, 0)}, family=['acme', 'OTHER'])\n"
        "try: e.policy(tau=0.2, allowed=['ACME/ONE', 'NOBODY', 'NONE'])\n"
        "except ipr_engine.InvalidInputError as error: print(p.allowed, dict(p.exclusions), p.prices.prices, error)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, engine.bundle.path],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (0, 1, 2)
    }
    assert len(told) == 1
