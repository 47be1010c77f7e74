"""Settings: what is wrong with them is one sentence, whichever key or keys it is about."""

from __future__ import annotations

import pytest
from pydantic import model_validator

from lmsat_plugin import LmsatError, Settings
from lmsat_plugin.settings import parse_own, parse_settings
from lmsat_plugin.yaml_files import read_config


class Range(Settings):
    """Two settings that are checked together, as a third party's probe may do."""

    low: int = 1
    high: int = 10

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"low": 11}, "low=11 is not right (low is above high): correct it"),
        ({"low": 3, "high": 2}, "low=3, high=2 is not right (low is above high): correct it"),
        (
            {"low": "x"},
            "low=x is not right (Input should be a valid integer, unable to parse string as an integer): correct it",
        ),
        ({"hihg": 2}, "unknown setting 'hihg': did you mean high?"),
    ],
)
def test_what_is_wrong_is_one_sentence(values, says):
    with pytest.raises(LmsatError) as raised:
        parse_settings(Range, values)
    assert str(raised.value) == says


def test_settings_of_others_are_left_out():
    assert parse_own(Range, {"high": 5, "unknown": 1}) == Range(high=5)


def test_settings_that_are_wrong_together_are_named_with_their_line(tmp_path):
    path = tmp_path / "range.yaml"
    path.write_text("low: 20\n")
    with pytest.raises(LmsatError, match=r"range\.yaml, line 1: .*low is above high") as raised:
        read_config(path, Range)
    assert "\n" not in str(raised.value)
