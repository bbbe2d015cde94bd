"""Numbers of a report are written with the digits that their verdict needs."""

from ipr_engine.evaluation.markdown import digits_off, number


def test_an_interval_that_does_not_hold_1_is_written_so_that_it_is_seen():
    ratio = {"value": 1.0899, "low": 1.0013, "high": 1.18, "defined": 1.0}
    assert number(ratio, digits_off(ratio, 1.0, least=2)) == "1.090 [1.001, 1.180]"
    assert digits_off({**ratio, "low": 1.2}, 1.0, least=2) == 2
    assert digits_off({**ratio, "low": 1.0}, 1.0, least=2) == 2
    assert digits_off({**ratio, "low": None}, 1.0, least=2) == 2
