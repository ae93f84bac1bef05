"""The command line of `pretrained`."""

from collections.abc import Sequence

from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.pretrained.addresses import IMAGENET, KNOWN
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.settings.command_line import Parser, user_errors


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("python -m fixed_head_jax.pretrained")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="check weights and write them to another file")
    command.add_argument(
        "source", metavar="IN", help="a file of weights, timm:NAME, torchvision:FILE, RUN, RUN:best"
    )
    command.add_argument("target", metavar="OUT", help=".safetensors, or .pkl for detectron2")
    command.add_argument("--backbone", required=True, choices=BACKBONES)
    command.add_argument("--image_size", type=int, default=224, help="pixels, of a file's images")
    command.add_argument("--channels", type=int, default=3, help="of a file's images")
    command.add_argument(
        "--skip", action="append", default=[], help="pattern of names to leave out"
    )
    commands.add_parser("list", help="public weights by name, and what images they expect")
    options = vars(parser.parse_args(arguments))
    if options.pop("command") == "list":
        print(_table())
        return
    with user_errors(parser):
        count = convert(**options)
    print(f"{count} arrays of {options['backbone']} in {options['target']}")


def _table():
    """Returns the public weights of every backbone."""
    rows = [["init_from", "backbone", "top-1", "images", "mean, std"]]
    for name, (backbone, top1, images) in KNOWN.items():
        size = f"{images.resize_size}, {images.image_size}, {images.interpolation}"
        statistics = "ImageNet" if (images.mean, images.std) == IMAGENET else "0.5, 0.5"
        rows.append([name, backbone, "-" if top1 is None else f"{top1:.3f}", size, statistics])
    mean, std = (", ".join(map(str, values)) for values in IMAGENET)
    return markdown(rows) + (
        "\nImages: shorter side, centre crop, interpolation; ImageNet's mean "
        f"({mean}), std ({std}).\nOther weights there can be named too, if they are of a backbone."
    )


if __name__ == "__main__":
    main()
