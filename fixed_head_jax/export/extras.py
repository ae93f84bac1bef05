"""What the formats need beside the package: extras, imported when they are first used."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs(what: str, package: str, install: str) -> Iterator[None]:
    """Raises ValueError, saying what to install, where an import inside fails.

    Args:
        what: is written.
        package: that writes it.
        install: arguments of pip.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(f"writing {what} needs {package}: pip install {install}") from error
