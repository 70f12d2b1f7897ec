"""InputError, the exception for invalid input, and its texts for pydantic's validation errors."""

from __future__ import annotations

import reprlib

MAX_LENGTH = 2000  # characters of an error's text


class InputError(ValueError):
    """Input (a file, a message, an option) that cannot be used.

    The text is one line that names the input, what was expected and what was found. Commands print it to stderr and
    exit with 2; nodes refuse to configure or abort the goal with it.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(str(message)))


def _one_line(text: str) -> str:
    """Return the text as one printable line of at most MAX_LENGTH characters.

    Texts of other libraries and names in files may have line breaks, control characters and lone surrogates.
    """
    text = " ".join(text[: 2 * MAX_LENGTH].split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 2]} …"


def _shown(value: object) -> str:
    """Return the first characters of a value of any size."""
    if isinstance(value, str | bytes):
        return str(value[:80])
    try:
        return reprlib.repr(value)[:80] if isinstance(value, list | tuple | dict) else str(value)[:80]
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a number of thousands of digits"


def first_problem(error) -> str:
    """Return the first problem of a pydantic ValidationError as "field: expected ..., found ..."."""
    return _one_line(_problem(error.errors()[0]))


def problems(error) -> list[str]:
    """Return all problems of a pydantic ValidationError, one line each."""
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
