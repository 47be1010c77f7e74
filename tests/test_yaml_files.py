"""YAML that is wrong, or without end: one sentence with the lines, at once."""

from __future__ import annotations

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.settings import Settings, parse_settings
from lmsat_plugin.yaml_files import parse_yaml, read_config

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


class Given(Settings):
    number: int = 0
    anything: dict = {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("number: 1\nanything: {}\nnumber: 2\n", "lines 1 and 3: the key 'number' is there twice: remove one"),
        ("anything:\n  a: 1\n  b: 2\n  a: 3\n", "lines 2 and 4: the key 'a' is there twice"),
        (BOMB, "aliases make more than 100,000 values of it"),
        ("anything: &all\n  inside: *all\n", "line 1: an alias stands for what holds it"),
        ("anything: " + "[" * 5000, "nested too deeply"),
        ("anything: " + "{a: " * 300 + "}" * 300, "nested too deeply"),
        ("number: " + "9" * 5000, "line 1: 9999999999... has 5000 digits"),
        ("number: 0x" + "f" * 40, "a whole number beyond 64 bits"),
        ("anything: {a: 0b" + "1" * 6000 + "}", "a whole number beyond 64 bits"),
        ("anything: {when: 2001-99-99}", "no valid YAML"),
        ("anything: {a: !!int x}", "no valid YAML"),
        ("anything: {a: !!python/object:os.system x}", "no valid YAML"),
        (r'anything: {a: "x\0y"}', "the text holds a zero character"),
        ("? [number]\n: 1\n", "no valid YAML"),
        ("1: number\n", "the key 1 is no name"),
        ("number: x" + "x" * 500, "x... is not right"),
        ("x" * 1_000_001, "has 1,000,001 letters, too many"),
    ],
)
def test_one_sentence_at_once(tmp_path, text, says):
    path = tmp_path / "given.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(LmsatError) as error:
        read_config(path, Given)
    assert says in str(error.value)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_aliases_within_reason_are_taken():
    _, values = parse_yaml("a: &one {x: 1}\nb: {<<: *one, y: 2}\nc: [*one, *one]\n", "here")
    assert values == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


@pytest.mark.parametrize("value", [10**400, {"deep": [{"er": -(2**63)}]}, {"a\0b": 1}])
def test_settings_from_elsewhere_are_within_reason_too(value):
    """As from `--metadata`, which lm-eval parses."""
    with pytest.raises(LmsatError, match=r"is not right \((a whole number beyond 64 bits|text with a zero character)"):
        parse_settings(Given, {"number" if isinstance(value, int) else "anything": value})
