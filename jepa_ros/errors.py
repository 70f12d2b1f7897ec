"""The one exception that says: what you gave me is not usable, and here is why."""


class InputError(ValueError):
    """Input from outside (a file, a message, an option) that cannot be used.

    The text is one line for a person that names the input, what was expected and what was found. Commands print it to
    stderr and exit with 2; nodes refuse to configure or abort the goal with it.
    """

    def __init__(self, message: str):
        # Reasons that come from other libraries may hold line breaks; the reader is promised one line.
        super().__init__(" ".join(str(message).split()))
