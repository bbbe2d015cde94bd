"""The options of a policy and of loading a bundle are stated once: what repeats them is held to that."""

from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import ipr_engine
from ipr_engine._options import Form, about
from ipr_engine.bundle import Bundle
from ipr_engine.encoders.load_options import LoadKeywords, LoadOptions
from ipr_engine.engine import DEFAULT_BUNDLE
from ipr_engine.policy.policy_spec import DEFAULTS, PolicyOptions, PolicySpec
from ipr_engine.policy.rules import TARGETS

USAGE = Path(__file__).parents[2] / "docs" / "usage.md"


@pytest.mark.parametrize(("options", "keywords"), [(PolicySpec, PolicyOptions), (LoadOptions, LoadKeywords)])
def test_the_keywords_of_a_call_are_the_fields_of_its_options(options, keywords):
    assert get_type_hints(keywords) == get_type_hints(options)
    assert not keywords.__required_keys__


def as_table(options):
    """The table of docs/usage.md: every option, its flag, its default and its meaning."""
    lines = ["| argument | flag | default | what it says |", "|---|---|---|---|"]
    for field in fields(options):
        known = about(options)[field.name]
        flag = "" if known.flag is None else f"`{known.flag.name or '--' + field.name.replace('_', '-')}`"
        default = "" if field.default is None else f"`{field.default!r}`"
        lines.append(
            f"| `{field.name}` | {flag} | {default} | {known.doc} |".replace("|  |", "| |").replace("|  |", "| |")
        )
    return "\n".join(lines)


@pytest.mark.parametrize("options", [PolicySpec, LoadOptions])
def test_the_usage_page_has_the_table_of_the_options(options):
    table = as_table(options)
    assert table in USAGE.read_text(encoding="utf-8"), f"docs/usage.md: expected this table:\n\n{table}"


def test_every_option_of_a_policy_has_a_form_in_records():
    assert {known.form for known in about(PolicySpec).values()} <= set(get_args(Form))


def test_what_stands_in_place_of_tau_are_options():
    assert set(TARGETS) < DEFAULTS.keys()


def test_a_keyword_that_is_no_option_is_refused_as_python_does():
    engine = ipr_engine.Engine.load()
    with pytest.raises(TypeError, match=r"^Engine\.policy\(\) got an unexpected keyword argument 'tua'$"):
        engine.policy(tua=0.1)
    with pytest.raises(TypeError, match=r"^Engine\.load\(\) got an unexpected keyword argument 'teir'$"):
        ipr_engine.Engine.load(teir="onnx")
    with pytest.raises(TypeError, match=r"^Engine\.__init__\(\) got an unexpected keyword argument 'teir'$"):
        ipr_engine.Engine(Bundle.load(DEFAULT_BUNDLE), teir="onnx")
