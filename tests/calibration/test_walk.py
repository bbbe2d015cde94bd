"""The walk of `ipr calibrate`: how many files of the package run between a sample and a map."""

from __future__ import annotations

from pathlib import Path

from tests.support.calibration_data import calibrate, make_engine, make_outcomes
from tests.support.walks import recorded_walk

# 33 and 6 before the rooms were rebuilt. What is beyond the room embeds prompts, compiles policies and decides: it is counted
# so that it cannot grow unseen.
MOST, MOST_OF_THE_ROOM = 39, 4


def test_calibrating_walks_through_few_files(tmp_path: Path) -> None:
    plain = make_engine(tmp_path / "plain")
    path_data = make_outcomes(plain, "train", 500)
    engine, sample = make_engine(tmp_path, fitted=path_data), make_outcomes(plain, "calibration", 700)
    with recorded_walk() as walk:
        calibrate(engine, sample, path_data, points=12)  # what is made once
        walk.clear()
        calibrate(engine, sample, path_data, points=12)
    assert len(walk.files) <= MOST, str(walk)
    assert len([file for file in walk.files if file.startswith("calibration/")]) <= MOST_OF_THE_ROOM, str(walk)
