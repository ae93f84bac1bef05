"""The flag --config=NAME:VARIANT with its --config.KEY=VALUE, as all commands take it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fixed_head_jax.settings import schema
from fixed_head_jax.settings.lookup import closest

PACKAGED = Path(__file__).parents[1] / "configs"


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
        "NAME[:VARIANT] of an experiment, or a file; --config.KEY=VALUE sets its keys",
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
    argv = _with_file(argv)
    schema.check_names(keys, given_keys(argv))
    try:
        return values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        cause: Exception = error
        while cause.args and isinstance(cause.args[0], Exception):
            cause = cause.args[0]
        lines = [line for line in str(cause.args[0] if cause.args else cause).split("\n") if line]
        message = ". ".join(lines) if isinstance(cause, KeyError) else lines[-1].strip()
        raise ValueError(re.sub(r"^\w+Error: ", "", message)) from cause


def given_keys(arguments: Sequence[str]) -> list[str]:
    """Returns the config keys that a command line sets."""
    given = (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in arguments)
    return [key.group(1) for key in given if key]


def load(arguments: Sequence[str], keys: Mapping[str, schema.Key]) -> ConfigDict:
    """Returns the config of a command line that holds nothing else; raises as `parse` does."""
    values, argv = flags.FlagValues(), ["", *arguments]
    flag = define(values, argv)
    if more := parse(values, argv, keys)[1:]:
        raise ValueError(f"unknown argument {more[0]!r}; config keys are set by --config.KEY=VALUE")
    return flag.value


def find_file(name: str) -> str:
    """Returns the file of an experiment that a user names, with its variant.

    Args:
        name: a Python file of the user's, or an experiment of the package, "digits" or
            "configs/digits.py"; behind a colon, the variant.

    Raises:
        ValueError: if there is none, with the most similar name.
    """
    given, colon, variant = name.partition(":")
    path = Path(given)
    if path.suffix == ".py" and path.is_file():
        return name
    is_bare = str(path.parent) in (".", PACKAGED.name) and path.suffix in ("", ".py")
    if is_bare and path.stem in experiments():
        return f"{PACKAGED / path.stem}.py{colon}{variant}"
    hint = closest(given, map(str, path.parent.glob("*.py"))) or closest(path.stem, experiments())
    raise ValueError(f"--config={given!r} is no experiment and no Python file{hint}")


def experiments() -> list[str]:
    """Returns the names of the package's experiments."""
    stems = (path.stem for path in PACKAGED.glob("[!_]*.py"))
    return sorted(stem for stem in stems if not stem.endswith("common"))


def _with_file(argv):
    """Returns a command line whose --config names a file."""
    argv = list(argv)
    for i, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            if equals:
                argv[i] = f"--config={find_file(value)}"
            elif i + 1 < len(argv):
                argv[i + 1] = find_file(argv[i + 1])
    return argv
