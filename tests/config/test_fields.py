"""Reading one value by its field's type, from a word of the command line and from parsed YAML."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Literal

import pytest

from lungseg.config import Config
from lungseg.config.fields import field_types, from_word, from_yaml
from lungseg.errors import did_you_mean

Choice = Literal["none", "balanced"]
Devices = int | str | list[int]


def _leaves(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for f in fields(config):
        value = getattr(config, f.name)
        keys += _leaves(value, f"{prefix}{f.name}.") if is_dataclass(value) else [f"{prefix}{f.name}"]
    return keys


def test_field_types_lists_every_leaf_in_the_schemas_order() -> None:
    assert list(field_types()) == _leaves(Config())
    assert field_types()["optim.lr"] is float
    assert field_types()["run.name"] == str | None
    assert field_types()["model.head"] == Literal["linear", "conv"]
    assert field_types()["wandb.tags"] == list[str]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, "007", "007"),
        (str, "1e-4", "1e-4"),
        (str, "True", "True"),
        (str, "none", "none"),
        (str, "[1]", "[1]"),
        (str | None, "a=b", "a=b"),
        (str | None, "null", None),
        (str | None, "None", None),
        (str | None, "none", None),
        (str | None, "", None),
        (int | None, "None", None),
        (list[int] | None, "none", None),
        (Choice, "none", "none"),
        (bool, "True", True),
        (bool, "False", False),
        (bool, "yes", True),
        (bool, "off", False),
        (int, "-3", -3),
        (int, "32.0", 32),
        (int, "9007199254740993", 9007199254740993),
        (int, "1e2", 100),
        (float, "1e-4", 1e-4),
        (float, "1e-05", 1e-05),
        (float, "1", 1.0),
        (float | None, "0.5", 0.5),
        (list[str], "[]", []),
        (list[str], "['a', 'b']", ["a", "b"]),
        (list[str], "[a, b]", ["a", "b"]),
        (list[str], "[007, null, True]", ["007", "null", "True"]),
        (list[str], str(['it\'s "x"', "a\nb"]), ['it\'s "x"', "a\nb"]),
        (list[int], "[256, 128]", [256, 128]),
        (list[int], "[256,128]", [256, 128]),
        (Devices, "2", 2),
        (Devices, "-1", -1),
        (Devices, "auto", "auto"),
        (Devices, "[0, 1]", [0, 1]),
        (Devices, "0,1", "0,1"),
        (float, "${optim.lr}", "${optim.lr}"),
    ],
)
def test_word_is_read_by_the_fields_type(kind: Any, text: str, value: object) -> None:
    got = from_word(kind, text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "rule"),
    [
        (str, "", "may not be empty or null"),
        (float, "", "may not be empty or null"),
        (list[str], "", "may not be empty or null"),
        (float, "fast", "expected a number (float), got 'fast'"),
        (float, "None", "expected a number (float), got 'None'"),
        (float, "True", "expected a number (float), got 'True'"),
        (int, "1.5", "expected a whole number (int), got '1.5'"),
        (int, "nan", "expected a whole number (int), got 'nan'"),
        (int, "inf", "expected a whole number (int), got 'inf'"),
        (int, "x", "expected a whole number (int), got 'x'"),
        (bool, "1", "expected true or false (bool), got '1'"),
        (bool, "None", "expected true or false (bool), got 'None'"),
        (Choice, "balancd", "must be one of 'none', 'balanced', got 'balancd'; did you mean 'balanced'?"),
        (Choice, "zzz", "must be one of 'none', 'balanced', got 'zzz'"),
        (list[str], "a", "expected a list of str, got 'a'"),
        (list[str], "[a", "expected a list of str, got '[a'"),
        (list[int], "[1, x]", "expected a list of int, got ['1', 'x']"),
        (list[int], "[[1]]", "expected a list of int, got '[[1]]'"),
        (Devices, "None", "may not be empty or null"),
        (Devices, "1.5", "expected a whole number (int) or text (str) or a list of int, got 1.5"),
        (Devices, "true", "expected a whole number (int) or text (str) or a list of int, got True"),
        (Devices, "[0, a]", "expected a whole number (int) or text (str) or a list of int, got [0, 'a']"),
        (str, "???", "must be given a value, got '???'"),
    ],
)
def test_word_that_breaks_a_rule_names_rule_and_value(kind: Any, text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=r"got|null") as caught:
        from_word(kind, text)
    assert str(caught.value) == rule


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (str | None, None, None),
        (str | None, "None", "None"),
        (str | None, "null", "null"),
        (float, 1, 1.0),
        (int, 2.0, 2),
        (float, "1e-4", 1e-4),
        (bool, False, False),
        (list[str], ["a"], ["a"]),
        (Devices, "2", "2"),
    ],
)
def test_yaml_value_keeps_quoted_text_and_takes_equal_numbers(kind: Any, value: object, read: object) -> None:
    got = from_yaml(kind, value)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        (int, None, "may not be empty or null"),
        (Devices, None, "may not be empty or null"),
        (str, 7, "expected text (str), got 7; put it in quotes"),
        (str | None, True, "expected text (str), got True; put it in quotes"),
        (str, {"a": 1}, "expected text (str), got {'a': 1}"),
        (int, True, "expected a whole number (int), got True"),
        (int, 0.5, "expected a whole number (int), got 0.5"),
        (float, True, "expected a number (float), got True"),
        (float, b"1", "expected a number (float), got b'1'"),
        (float, [1.0], "expected a number (float), got [1.0]"),
        (bool, 1, "expected true or false (bool), got 1"),
        (Choice, 0, "must be one of 'none', 'balanced', got 0"),
        (list[str], ["a", 1], "expected a list of str, got ['a', 1]"),
        (list[str], [None], "expected a list of str, got [None]"),
        (Devices, {"a": 1}, "expected a whole number (int) or text (str) or a list of int, got {'a': 1}"),
    ],
)
def test_yaml_value_of_another_type_is_refused(kind: Any, value: object, rule: str) -> None:
    with pytest.raises(ValueError, match=r"got|null") as caught:
        from_yaml(kind, value)
    assert str(caught.value) == rule


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a number"):
        from_yaml(float, 10**400)


def test_did_you_mean_joins_names_and_is_empty_without_any() -> None:
    assert did_you_mean(["a", "b"]) == "; did you mean 'a' or 'b'?"
    assert did_you_mean([]) == ""
