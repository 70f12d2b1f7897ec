"""The one exception that says: what you gave me is not usable, and here is why."""


class InputError(ValueError):
    """Input from outside (a file, a message, an option) that cannot be used.

    The text is one line for a person that names the input, what was expected and what was found. Commands print it to
    stderr and exit with 2; nodes refuse to configure or abort the goal with it.
    """

    def __init__(self, message: str):
        # Reasons that come from other libraries may hold line breaks; the reader is promised one line.
        super().__init__(" ".join(str(message).split()))


def first_problem(error) -> str:
    """The first of a pydantic ValidationError's problems as "field: expected ..., found ..."."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "file"
    if first["type"] == "missing":
        return f"{field}: expected a value, found none"
    if first["type"] == "extra_forbidden":
        return f"{field}: expected no such field, found one"
    expected = first["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    found = "" if isinstance(first.get("input"), dict) else f", found {str(first.get('input'))[:80]}"
    return f"{field}: {expected}{found}"
