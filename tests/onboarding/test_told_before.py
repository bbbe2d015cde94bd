"""What is known before any call to stand in the way of a certificate is told before any call, by `ipr add-model --plan` and `ipr init`."""

from __future__ import annotations

import pytest

from tests.support.adding_numbers import MODELS, by_chance, plan, run_add_model, run_init, write_prompts, write_work
from tests.support.skips import COLLECT, GRADE, TRAIN

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)
pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("threadpoolctl", reason=TRAIN)

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """A bundle whose heads tell nothing apart."""
    return write_work(tmp_path_factory.mktemp("constant"), by_chance)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return write_work(tmp_path_factory.mktemp("work"))


def test_that_all_depends_on_the_new_head_is_told_where_all_others_are_constant(constant, capsys):
    assert run_add_model(constant, plan(constant, NOBODY)) == 0
    told = capsys.readouterr().err
    assert (
        "every head of the bundle is constant: nothing will be certified unless that of new tells prompts apart" in told
    )
    assert "`ipr train`" in told
    assert "--certify 0" in told
    assert "nothing was sent" in told


def test_it_is_not_told_where_nothing_is_to_be_certified_or_some_head_tells(constant, work, capsys):
    assert run_add_model(constant, plan(constant, NOBODY), "--certify", "0") == 0
    assert run_add_model(work, plan(work, NOBODY)) == 0
    assert "every head of the bundle is constant" not in capsys.readouterr().err


def test_beside_a_candidate_that_costs_nothing_no_prompt_is_paid_to_certify(work, capsys):
    file = plan(work, NOBODY, name="free")
    file.write_text(file.read_text().replace("0.1,", "0,").replace("0.4,", "0,"))
    assert run_add_model(work, file) == 0
    told = capsys.readouterr().err
    assert "0 drawn to certify" in told
    assert "nothing will be certified: prices: expected a price above 0 of every candidate, 'free' cost nothing" in told


def test_a_first_router_with_a_candidate_that_costs_nothing_is_told_so(tmp_path, capsys):
    write_prompts(tmp_path, 120)
    models = MODELS.format(base_url=NOBODY)
    (tmp_path / "models.yaml").write_text(models)
    assert run_init(tmp_path) == 0
    assert "nothing will be certified" not in capsys.readouterr().err
    (tmp_path / "models.yaml").write_text(models.replace("0.1,", "0,").replace("0.4,", "0,"))
    assert run_init(tmp_path) == 0
    assert (
        "nothing will be certified: prices: expected a price above 0 of every candidate, 'small'"
        in capsys.readouterr().err
    )
