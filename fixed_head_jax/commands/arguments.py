"""The command line: modes and flags, and what arguments without a name stand for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict

from fixed_head_jax.settings import config_flag, schema
from fixed_head_jax.settings.lookup import closest


class Mode(NamedTuple):
    """What the program can do.

    Attributes:
        summary: of it, for --help.
        takes: the flags that arguments without a name stand for; the last takes all that are left.
    """

    summary: str
    takes: tuple[str, ...]


MODES = {
    "train": Mode("trains a config, or goes on with it in its workdir", ("config",)),
    "evaluate": Mode("measures the best and the last checkpoint again", ("workdir",)),
    "predict": Mode("classifies photographs: files, folders, patterns", ("workdir", "images")),
    "report": Mode("writes report.html of a run, or of several, anew", ("workdir",)),
    "search": Mode("turns the dials that the config lists, --budget trials", ("config",)),
    "keys": Mode("lists the keys of configs, or those with PART in their names", ("part",)),
    "configs": Mode("lists the experiments with their variants, or those named so", ("part",)),
}
TOOLS = {
    "data": "prepares datasets, folders of photographs among them, and tells what is in them",
    "visualize": "draws what a run sees",
    "demo": "opens a page on which a trained model looks at photographs",
    "export": "writes a trained model as a file that runs without this package",
    "ensemble": "joins the predictions of several runs",
    "pretrained": "lists public weights, and converts files of weights",
    "accounting": "counts parameters and multiply-adds",
}
_USAGE = """{program} MODE [NAME] [--FLAG=VALUE ...] [--config.KEY=VALUE ...]

modes (also as --mode=MODE)
{modes}

flags
{flags}

tools, each with a --help of its own
{tools}

exit codes: 0 done, 2 bad input, 3 diverged, 75 stopped and saved (SIGTERM), 130 interrupted"""


class CommandLine(NamedTuple):
    """A command line, understood.

    Attributes:
        mode: one of `MODES`.
        flags: the others by name.
        config_file: of --config, with its variant; empty without it.
        config: that the command line leaves.
        overrides: the config values that it sets, by dotted key.
    """

    mode: str
    flags: flags.FlagValues
    config_file: str
    config: ConfigDict
    overrides: dict[str, Any]


def parse(arguments: Sequence[str]) -> CommandLine:
    """Parses a command line without the program's name, `MODE NAME --flag=value ...` or flags.

    Raises:
        ValueError: on a misspelt mode, flag, file, key or variant, or a value that cannot be read.
    """
    from fixed_head_jax.configs import common  # takes a second, which --help need not

    argv = ["", *_as_flags(arguments)]
    is_named = any(one.lstrip("-").partition("=")[0] == "config" for one in argv)
    if not is_named:  # the keys are those of any config
        argv.insert(1, f"--config={common.__file__}")
    values = _define(argv)
    for argument in config_flag.parse(values, argv, common.KEYS)[1:]:
        if MODES[values.mode].takes != ("part",) or values.part:  # of --mode=keys PART
            raise ValueError(f"unknown argument {argument!r}; flags are --NAME=VALUE")
        values.part = argument
    if not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes
    config = common.settle(values.config)
    flat = schema.flatten(config)
    overrides = {key: flat[key] for key in config_flag.given_keys(argv)}
    file = values["config"].config_filename if is_named else ""
    line = CommandLine(values.mode, values, file, config, overrides)
    _check(line)
    return line


def usage(program: str) -> str:
    """Returns what --help prints; it fits a screen."""
    values = _define([])
    modes = {" ".join((name, *map(str.upper, m.takes))): m.summary for name, m in MODES.items()}
    shown = {
        f"--{name}": values[name].help.partition(";\n")[0]  # absl adds a line to repeated ones
        for name in values
        if name not in ("v", "verbosity", "mode", "part")
    }
    sections = {"modes": modes, "flags": shown, "tools": TOOLS}
    return _USAGE.format(program=program, **{key: _columns(v) for key, v in sections.items()})


def _define(argv):
    """Returns the program's flags, which are to parse `argv`."""
    values = flags.FlagValues()

    def add(define, name, default, meaning):
        define(name, default, meaning, flag_values=values)

    config_flag.define(values, argv)
    add(flags.DEFINE_string, "workdir", None, "folder of the run; what is in it goes on")
    flags.DEFINE_enum("mode", "train", list(MODES), "one of the above", flag_values=values)
    add(flags.DEFINE_integer, "seeds", 0, "trains with so many seeds, and leaves a table")
    add(flags.DEFINE_bool, "sweep", False, "runs every row of the config's get_sweep()")
    add(flags.DEFINE_integer, "sweep_index", None, "with --sweep: this row alone, from 0")
    add(flags.DEFINE_integer, "budget", 20, "with search: trials in the whole study")
    add(flags.DEFINE_multi_string, "images", [], "with predict: files, folders or patterns")
    add(flags.DEFINE_string, "out", None, "with predict: .csv, .json, .jsonl or .parquet to write")
    add(flags.DEFINE_integer, "top_k", 5, "with predict: classes of each photograph")
    add(flags.DEFINE_bool, "features", False, "with predict: writes the features, too")
    add(flags.DEFINE_bool, "maps", False, "with predict: draws class maps over the photographs")
    add(flags.DEFINE_string, "which", "best", "with predict: the best checkpoint or the last")
    add(flags.DEFINE_bool, "distributed", False, "joins the other processes of a cluster")
    add(flags.DEFINE_string, "part", "", "of the names to list")
    values["verbosity"] = flags.FLAGS["verbosity"]
    return values


def _check(line):
    """Raises ValueError unless the flags go with each other."""
    if MODES[line.mode].takes == ("part",):
        return
    if not line.flags.workdir:
        raise ValueError("--workdir=... is required: the folder of the run")
    reads_workdir = MODES[line.mode].takes[0] == "workdir"
    if not line.config_file and not reads_workdir:
        raise ValueError("--config=... is required; `fixed-head configs` lists them")
    if line.mode == "predict" and not line.flags.images:
        raise ValueError("--images=... is required: files, folders or patterns")
    if line.flags.seeds < 0:
        raise ValueError(f"--seeds={line.flags.seeds} must be at least 1; leave it out for one")
    if line.flags.sweep and line.flags.seeds:
        raise ValueError("--sweep has seeds of its own; leave out --seeds")
    if line.mode != "train" and (line.flags.sweep or line.flags.seeds):
        raise ValueError(
            f"--mode={line.mode} goes without --sweep and --seeds; of a sweep, name a row's folder"
        )


def _as_flags(arguments):
    """Writes `MODE NAME ... --flag=value` as flags."""
    if not arguments or arguments[0].startswith("-"):
        return list(arguments)
    mode, *others = arguments
    if mode not in MODES:
        hint = closest(mode, [*MODES, *TOOLS])
        raise ValueError(f"unknown mode {mode!r}{hint}; known: {', '.join([*MODES, *TOOLS])}")
    count = next((i for i, one in enumerate(others) if one.startswith("-")), len(others))
    takes = MODES[mode].takes
    names = [*takes, *takes[-1:] * count][:count]
    named = [f"--{name}={value}" for name, value in zip(names, others[:count], strict=True)]
    return [f"--mode={mode}", *named, *others[count:]]


def _columns(rows):
    width = max(map(len, rows)) + 2
    return "\n".join(f"  {name:{width}}{meaning}" for name, meaning in rows.items())
