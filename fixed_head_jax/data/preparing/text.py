"""Names of files and classes as text for people."""

import os
import unicodedata
from collections.abc import Sequence

_UNFIT = ("Cc", "Zl", "Zp")  # controls, separators of lines and paragraphs: break lists of names


def as_text(name: str) -> str:
    """Returns the name of a file as one line of text.

    Bytes that are not UTF-8 and characters that end lines or control a terminal become escapes.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNFIT else c
        for c in text
    )


def shorten(names: Sequence[str], most: int = 20) -> str:
    """Lists the first names."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
