"""What is raised where a user is to blame: the command prints it as one line and ends with exit code 2.

Everything else that surfaces is a fault of this package and leaves with its traceback. A file that is not there or
may not be read stays Python's own FileNotFoundError, PermissionError and the like.
"""

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in an option, a value or a file; its message says what, where, the value got and what to do."""


class ConfigError(UserError):
    """A mistake in the configuration: source, full key, rule, value and the nearest right name."""


class DataError(UserError):
    """A fault of a data set or of one image: the message names the file."""


class SweepError(UserError):
    """A mistake in a sweep: the message names the file and the key."""


class NonFiniteLossError(UserError):
    """A training whose loss is no longer a number: the message says in which epoch, and what to change."""


class ExportError(UserError):
    """An exported file that does not compute what the network does; nothing is left under its name."""


def check(holds: object, key: str, rule: str, value: object) -> None:
    """Raise a UserError that names the full key, the rule and the value got: what every range goes through."""
    if not holds:
        raise UserError(f"{key}: must be {rule}, got {value!r}")


def printable(text: str) -> str:
    """Text on one line: what is not printable, and could be a command to a terminal, is escaped.

    Bytes of names that are not UTF-8 (U+DC80 to U+DCFF) stay: what writes them says how.
    """
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode() for c in text
    )


def did_you_mean(names: Sequence[str]) -> str:
    """End a message with the nearest right names; empty without any."""
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
