"""The command line of `export`."""

from collections.abc import Sequence
from pathlib import Path

from fixed_head_jax.export import OUTPUTS, SUFFIXES, export
from fixed_head_jax.inference import load
from fixed_head_jax.settings.command_line import Parser, user_errors


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("python -m fixed_head_jax.export", description="Writes a model as a file.")
    parser.add_argument("workdir", metavar="RUN", help="workdir of a run")
    parser.add_argument("--format", required=True, choices=SUFFIXES)
    parser.add_argument("--out", required=True, help="the file to write")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint")
    parser.add_argument(
        "--outputs", default="probabilities", help=f"separated by commas, of {', '.join(OUTPUTS)}"
    )
    parser.add_argument(
        "--normalized", action="store_true", help="takes float32 images that are normalised already"
    )
    parser.add_argument("--int8", action="store_true", help="weights of 8 bits: a quarter as large")
    options = parser.parse_args(arguments)
    with user_errors(parser):
        names = [name.strip() for name in options.outputs.split(",")]
        described = export(
            load(options.workdir, options.which), options.out, options.format, names,
            takes_levels=not options.normalized, int8=options.int8,
        )  # fmt: skip
    size = Path(options.out).stat().st_size
    print(f"{options.out}: {size:,} bytes; {described} says what it takes and gives")


if __name__ == "__main__":
    main()
