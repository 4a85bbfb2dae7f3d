"""Text from files and command lines: whether it is text, and how it is made harmless for a terminal."""

import json


def printable(text: str, keep: str = "") -> str:
    """Return ``text`` with every character that is not printable escaped as in JSON, such as ``\\u202e``.

    Control characters, also those of C1, could move the cursor and rewrite lines, bidirectional ones change
    the order in which text is read, and halves of surrogate pairs (bytes that are not UTF-8) cannot be
    encoded. JSON stays valid JSON.

    Args:
        text: any text.
        keep: the characters that stay as they are, such as the line feed.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def is_utf8(text: str) -> bool:
    """Return whether an argument was UTF-8. Python keeps other bytes as halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
