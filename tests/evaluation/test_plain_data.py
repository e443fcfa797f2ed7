from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from lungseg.evaluation.plain_data import from_plain, stored, to_plain


@dataclass(frozen=True)
class Inner:
    value: float | None
    images: int | None = field(default=None, metadata=stored(none_as="nothing"))


@dataclass(frozen=True)
class Outer:
    title: str = field(metadata=stored("what"))
    numbers: dict[str, list[Inner]] = field(default_factory=dict)
    part: Inner | None = field(default=None, metadata=stored(none_as="empty"))
    other: Inner | None = None


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Outer("a"), {"what": "a", "numbers": {}, "part": {}, "other": None}),
        (
            Outer("a", {"x": [Inner(0.5), Inner(None, 3)]}, Inner(1.0), Inner(None)),
            {
                "what": "a",
                "numbers": {"x": [{"value": 0.5}, {"value": None, "images": 3}]},
                "part": {"value": 1.0},
                "other": {"value": None},
            },
        ),
    ],
)
def test_plain_values_are_read_back_as_they_were(value: Outer, plain: dict[str, object]) -> None:
    assert to_plain(value) == plain
    assert list(to_plain(value)) == ["what", "numbers", "part", "other"]
    assert from_plain(Outer, plain) == value


def test_a_lacking_key_is_told_with_the_file_and_an_unknown_one_is_passed_over() -> None:
    assert from_plain(Outer, {"what": "a", "new": 1}) == Outer("a")
    with pytest.raises(ValueError, match=r"^m.json: 'what' is lacking, .*another version of lungseg; evaluate again"):
        from_plain(Outer, {"numbers": {}}, "m.json")
    with pytest.raises(ValueError, match="must hold an object, got 'list'"):
        from_plain(Outer, [], "m.json")
