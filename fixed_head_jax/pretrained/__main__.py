"""The command line of `pretrained`."""

from collections.abc import Sequence

from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.settings.command_line import Parser, user_errors


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("python -m fixed_head_jax.pretrained")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="check weights and write them to another file")
    command.add_argument("source", metavar="IN", help="a file of weights or a workdir")
    command.add_argument("target", metavar="OUT", help=".safetensors, or .pkl for detectron2")
    command.add_argument("--backbone", required=True, choices=BACKBONES)
    command.add_argument("--image_size", type=int, default=224, help="pixels, of a file's images")
    command.add_argument("--channels", type=int, default=3, help="of a file's images")
    command.add_argument(
        "--skip", action="append", default=[], help="pattern of names to leave out"
    )
    options = vars(parser.parse_args(arguments))
    del options["command"]
    with user_errors(parser):
        count = convert(**options)
    print(f"{count} arrays of {options['backbone']} in {options['target']}")


if __name__ == "__main__":
    main()
