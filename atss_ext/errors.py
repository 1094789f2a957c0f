"""What a user can mend, as an exception whose message is one sentence."""


class UserError(Exception):
    """Something the user can mend; the message is one sentence with the value and the way out."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type where it has none."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__
