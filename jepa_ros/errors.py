"""The one exception that says: what you gave me is not usable, and here is why."""

from __future__ import annotations

import reprlib

LONGEST = 2000
"""Characters of an error's text."""


class InputError(ValueError):
    """Input from outside (a file, a message, an option) that cannot be used.

    The text is one line for a person that names the input, what was expected and what was found. Commands print it to
    stderr and exit with 2; nodes refuse to configure or abort the goal with it.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(str(message)))


def _one_line(text: str) -> str:
    """Reasons that come from other libraries, and names out of files and messages, may hold line breaks, control
    characters, halves of characters and no end; a person is promised one line, and loggers take valid text only."""
    text = " ".join(text[: 2 * LONGEST].split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


def _shown(value: object) -> str:
    """The first characters of any value, however large it is."""
    if isinstance(value, str | bytes):
        return str(value[:80])
    try:
        return reprlib.repr(value)[:80] if isinstance(value, list | tuple | dict) else str(value)[:80]
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a number of thousands of digits"


def first_problem(error) -> str:
    """The first of a pydantic ValidationError's problems as "field: expected ..., found ..."."""
    return _one_line(_problem(error.errors()[0]))


def problems(error) -> list[str]:
    """All of them, one line each."""
    return [_one_line(_problem(one)) for one in error.errors()]


def _problem(first: dict) -> str:
    field = ".".join(str(part) for part in first["loc"]) or "file"
    if first["type"] == "missing":
        return f"{field}: expected a value, found none"
    if first["type"] == "extra_forbidden":
        return f"{field}: expected no such field, found one"
    expected = first["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    if first["type"] in ("too_long", "too_short"):
        bound = "most" if first["type"] == "too_long" else "least"
        expected = f"expected at {bound} {first['ctx'].get('max_length', first['ctx'].get('min_length'))} items"
    elif "expected" not in expected:
        expected = f"expected a value that fits ({expected})"
    found = "" if "found" in expected else f", found {_shown(first.get('input'))}"
    return f"{field}: {expected}{found}"
