"""This module tells a text without a UTF-8 form before it is encoded, and writes a value for an error."""


def lone_surrogate(text: str) -> int | None:
    """Return where a text holds a lone surrogate, so that it has no UTF-8 form; None where it has one.

    Told by a value, since the error of `str.encode` holds the whole text: raised from it, or while it is handled, an error of
    ours would carry a prompt away as its cause or context.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def shown(value: object) -> str:
    """A value for an error: short, and printable whatever it holds."""
    try:
        text = ascii(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def told(value: object) -> str:
    """A caller's value for an error: as `shown`, but of a text its length alone, since it may be of a prompt."""
    return f"a text of {len(value)} characters" if isinstance(value, str) else shown(value)
