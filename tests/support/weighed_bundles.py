"""A weighed bundle has figures to weigh, seconds and energy of each candidate, and weights for them."""

from dataclasses import replace

from ipr_engine import Engine
from ipr_engine.bundle import Performance, PriceTier
from tests.support.path_rows import with_path
from tests.support.tokenized_bundles import tokenized

TEXTS = ["what is the sum of two and two", "write a story " * 30, "Почему небо голубое?", '{"a": [1, 22]}']
FIGURES = [
    Performance(ttft_s=0.9, tpot_s=0.05, wh_per_request=0.02, wh_per_1m_input=40.0, wh_per_1m_output=800.0),
    Performance(ttft_s=0.3, tpot_s=0.004, wh_per_1m_output=90.0),
    Performance(ttft_s=0.5, tpot_s=0.02, wh_per_request=0.01),
    Performance(ttft_s=2.5, tpot_s=0.001, wh_per_1m_input=15.0),
    Performance(ttft_s=0.2, tpot_s=0.09, wh_per_1m_output=10.0),
]
WEIGHTS = {"usd": 0.7, "ttft_s": 2e-4, "generation_s": 5e-5, "wh": 1e-3}


def figures_of(names):
    return dict(zip(names, FIGURES, strict=False))


def weighed_bundle(folder):
    """Return a bundle with own tokenizers, one price with a tier, path rows."""
    bundle = tokenized(folder)
    name = bundle.names[2]
    price = bundle.prices.prices[name]
    tier = PriceTier(above_tokens=20, input_usd_per_1m=9.0, output_usd_per_1m=30.0)
    prices = replace(
        bundle.prices, prices={**bundle.prices.prices, name: replace(price, tiers=(tier,), per_image_usd=1e-4)}
    )
    return with_path(Engine(replace(bundle, prices=prices, hash="f" * 64))).bundle
