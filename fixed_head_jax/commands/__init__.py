"""The program: `fixed-head MODE ...` or `python main.py --mode=MODE ...`, and the tools.

What a mode needs is imported when it is asked for: --help and a mistake are answered soon.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 75, 130


def run(arguments: Sequence[str] | None = None, program: str = "fixed-head") -> NoReturn:
    """Runs a command line and ends the process with a documented exit code.

    What a user can mend, and what stops a run, is one line on standard error.

    Args:
        arguments: without the program's name; None for the process's own.
        program: its name, for the messages.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code, message = _run(argv, program)
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "interrupted before it began"
    if message:
        print(f"{program}: {message}", file=sys.stderr)
    sys.exit(code)


def _run(argv, program):
    """Returns the exit code and the message of a command line."""
    from fixed_head_jax.commands.arguments import TOOLS, parse, usage
    from fixed_head_jax.commands.listings import LISTINGS

    if not argv or argv[0].lstrip("-") in ("h", "help", "helpfull"):
        print(usage(program))
        return 0 if argv else EXIT_BAD_INPUT, ""
    if argv[0] in TOOLS:
        sys.argv = [program, *argv[1:]]
        runpy.run_module(f"fixed_head_jax.{argv[0]}", run_name="__main__")
        return 0, ""
    try:
        line = parse(argv)
    except ValueError as error:
        return EXIT_BAD_INPUT, error
    if line.mode in LISTINGS:
        try:
            print(LISTINGS[line.mode](line.flags.part), flush=True)
        except BrokenPipeError:  # `| head` has read enough; nothing is flushed at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ""
    from fixed_head_jax.commands.modes import run_mode

    return run_mode(line)
