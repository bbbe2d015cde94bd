"""What stands at the top of an evaluation's report: bundle, outcomes, costs, versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
from ipr_engine.evaluation.costs import CostBasis

PACKAGES = ("ipr_engine", "numpy", "scikit-learn", "matplotlib")


def about(
    basis: CostBasis,
    train: Outcomes,
    test: Outcomes,
    *,
    isa: str,
    stand_ins: int,
    predicts_tokens: bool,
    litellm: bool,
    command: str,
) -> dict[str, Any]:
    """What a reader needs to repeat an evaluation, title first. No folder of the machine is named.

    Args:
        train, test: the complete rows. isa: the instruction set that the op ran. stand_ins: see `costs.RealisedCosts`, of both splits.
        predicts_tokens: whether the heads predict output tokens. command: shown as what wrote the report.
    """
    names, bundle = basis.names, basis.bundle
    fitted = bundle.quality_heads.fitted_on
    if fitted.prompt_ids_sha256 == train.prompt_ids_sha256:
        overlap = "exactly the train rows read here: its predictions on train are in-sample"
    else:
        overlap = "not exactly the train rows read here, but some may be among them: in-sample then"
    return {
        "title": f"{bundle.name} bundle, {len(names)} candidate{'s' if len(names) > 1 else ''}, "
        f"on {test.source}, {len(test)} test prompts",
        "command": command,
        "bundle": f"{bundle.name} {bundle.hash}",
        "source": test.source,
        "outcomes": f"{test.source}; test prompt ids sha256 {test.prompt_ids_sha256}",
        "incomplete rows left out": f"{train.dropped} train, {test.dropped} test",
        "router fitted on": f"{fitted.prompts} prompts of {fitted.source}; {overlap}",
        "decided by": f"the C++ op, {isa}" + _tiers(bundle),
        "realised cost": basis.report(stand_ins, int(basis.priced.sum()) * (len(train) + len(test))),
        "output tokens": "predicted" if predicts_tokens else "the source's means, since the heads predict none",
        "versions": ", ".join(
            f"{name} {found}" for name in (*PACKAGES, *(["litellm"] if litellm else [])) if (found := _version(name))
        ),
    }


def _tiers(bundle: Bundle) -> str:
    spec = bundle.escalation
    return "" if spec is None else f"; where the gap is below {spec.gap:g} again by the second heads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
