"""The flag --config=FILE.py:VARIANT with its --config.KEY=VALUE, as all commands take it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fixed_head_jax.settings import schema


class _OrNone(flags.ArgumentParser):
    """Parses what another parser does, and None: what an optional key has by default."""

    def __init__(self, parser):
        self._parser = parser

    def parse(self, argument):
        return None if argument == "None" else self._parser.parse(argument)

    def flag_type(self):
        return self._parser.flag_type()


for _type, _parser in (
    (int, flags.IntegerParser), (float, flags.FloatParser), (bool, flags.BooleanParser),
    (str, flags.ArgumentParser),
):  # fmt: skip
    config_flags.register_flag_parser_for_type(_type, _OrNone(_parser()))


def define(
    values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None
) -> flags.FlagHolder:
    """Adds the flag to `values`; `argv` is what they will parse, None for the process's own."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "configs/x.py or configs/x.py:variant; "
        "`python -m configs.common` lists the keys that --config.key=value sets.",
        values,
        sys_argv=argv,
    )


def parse(
    values: flags.FlagValues, argv: Sequence[str], keys: Mapping[str, schema.Key]
) -> list[str]:
    """Parses a command line.

    Args:
        values: flags, those of `define` among them.
        argv: the program's name first.
        keys: that a config may have.

    Returns:
        What is no flag, the program's name first.

    Raises:
        ValueError: on a misspelt flag, file, key or variant, or a value that cannot be read.
    """
    given = (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv)
    _check_file(argv)
    schema.check_names(keys, [key.group(1) for key in given if key])
    try:
        return values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]
        lines = [line for line in str(error.args[0] if error.args else error).split("\n") if line]
        message = ". ".join(lines) if isinstance(error, KeyError) else lines[-1].strip()
        raise ValueError(re.sub(r"^\w+Error: ", "", message)) from error


def load(arguments: Sequence[str], keys: Mapping[str, schema.Key]) -> ConfigDict:
    """Returns the config of a command line that holds nothing else; raises as `parse` does."""
    values, argv = flags.FlagValues(), ["", *arguments]
    flag = define(values, argv)
    if more := parse(values, argv, keys)[1:]:
        raise ValueError(f"unknown argument {more[0]!r}; config keys are set by --config.KEY=VALUE")
    return flag.value


def _check_file(argv):
    """Raises ValueError, with the most similar name, where --config names no file."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            path = Path((value if equals else following).partition(":")[0])
            if path.suffix != ".py" or not path.is_file():
                names = [other.name for other in path.parent.glob("*.py")]
                close = difflib.get_close_matches(path.name, names)
                hint = f"; did you mean {str(path.parent / close[0])!r}?" if close else ""
                raise ValueError(f"--config={str(path)!r} is no Python file{hint}")
