"""A text without a UTF-8 form is told before it is encoded."""


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
