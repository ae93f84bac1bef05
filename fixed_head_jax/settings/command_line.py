"""Command lines of the tools: what a user can mend is one line, and exit code 2."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import NoReturn

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated arguments, and says what is wrong in one line, without the usage."""

    def __init__(self, prog: str, **options):
        super().__init__(prog, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        name = self.prog.rpartition(".")[2]  # of "python -m fixed_head_jax.NAME COMMAND"
        self.exit(EXIT_BAD_INPUT, f"{name}: {' '.join(message.split())}\n")


@contextlib.contextmanager
def user_errors(parser: Parser) -> Iterator[None]:
    """Ends the command where what is inside raises a mistake of the user, or is interrupted."""
    try:
        yield
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(EXIT_INTERRUPTED, "interrupted\n")
