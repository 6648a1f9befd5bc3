"""Real processes, killed in every way while clients change things: what was acknowledged stands, and nothing runs twice. The long form is tests/crash/run.py."""

import pathlib
import sys

import pytest

from conftest import BINARY

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

import story  # noqa: E402


@pytest.mark.parametrize("mode", ["up", "split"])
def test_one_kill_of_every_kind(mode):
    told = story.run(BINARY, seed=4, kills=7, split=mode == "split", each=True)
    assert not told.breach, "\n".join(told.story)
    assert told.kills >= 7 and told.acknowledged > 100 and told.looks > 10, told.row()
