"""The one check that every section's ranges go through."""

from __future__ import annotations


def check(holds: bool, key: str, rule: str, value: object) -> None:
    """Raise a ValueError that names the full key, the rule and the value got."""
    if not holds:
        raise ValueError(f"{key}: must be {rule}, got {value!r}")
