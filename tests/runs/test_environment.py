"""What a result depends on besides its config."""

from __future__ import annotations

from lungseg.runs.environment import environment


def test_environment_names_what_a_result_depends_on() -> None:
    values = environment("abc")
    assert values["data_fingerprint"] == "abc"
    assert {"torch", "lightning", "numpy"} <= set(values["packages"]) and values["devices"]
