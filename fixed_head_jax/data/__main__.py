"""Prepares datasets for training, and says what a prepared one holds."""

import argparse
import io
import logging
import sys
import textwrap
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from fixed_head_jax.data import info, prepared
from fixed_head_jax.data.builders import DEFINITIONS
from fixed_head_jax.data.preparing import catalog, image_folder, own_images
from fixed_head_jax.data.preparing.prepare import BadImagesError, Report, dataset_path, prepare
from fixed_head_jax.data.preparing.scratch import is_complete
from fixed_head_jax.display import pictures
from fixed_head_jax.display.numbers import format_classes
from fixed_head_jax.settings.command_line import Parser

_SHOWN = 20  # bad images on the screen


def _wrap(names: Iterable[str]) -> str:
    return textwrap.indent(textwrap.fill(", ".join(names), 95), "  ")


_NOTES = f"""\
NAME is one of
{_wrap(DEFINITIONS)};
  any image classification dataset of TFDS (cifar10, imagenet2012, cars196 ...);
  image_folder, for folders of your own images.

Every image of the first and the last kind is decoded before anything is written. Images that are
empty, no images, cut off, of a label or size that cannot be, or the second of their name are bad:
all are listed in DATA_DIR/NAME_problems.txt and nothing is written; --skip_bad leaves them out.
So are images whose largest value is not known: floats, 32-bit integers.
Grey, CMYK, alpha, 16-bit, palette and EXIF-rotated images, those with damage that decoders pass
over in silence, and those that training would read differently from Pillow, of an official archive,
are part of the published data: they are counted, stored as they are, and read as 8-bit pixels in
stored orientation. In an image folder they are bad too; --skip_bad leaves them out,
--convert stores those alone as 8-bit upright PNG (alpha dropped). All other images keep their
bytes. Where grey ones belong among RGB, --channels=3 takes them as they are. Pixels are those that
Pillow gives: of animations and pages the first; of deeper images the largest value of their depth
becomes 255. While it runs, preparing takes twice the space of the dataset.

TFDS datasets are written as array_record; where files in tfrecord are there already, they are
converted next to them, without TensorFlow. For preparing from the archives, most of them need
TensorFlow (never for training): pip install 'fixed_head_jax[prepare]'. These do:
{_wrap(catalog.NEED_TENSORFLOW)}.

exit codes: 0 done or done before, 2 bad input, 130 interrupted (nothing half-written is left)
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options = _parser().parse_args(arguments)
    # Pillow warns of odd tags and of very large images, without the file's name; what it cannot
    # read it raises as well.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may be what its encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
    except BadImagesError as error:
        print(*_list_problems(options, error.problems, "cannot be used"), sep="\n")
        print(f"{error}; {_advice(options)}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError) as error:  # of damaged files, too
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m fixed_head_jax.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="prepare | info")
    add = commands.add_parser(
        "prepare",
        help="check every image and write a dataset as array_record",
        description="Writes a dataset in the form that training reads.",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.set_defaults(run=_prepare)
    add.add_argument("dataset", metavar="NAME", help="dataset, or image_folder")
    add.add_argument("--data_dir", default="", help="where to write; TFDS's default if empty")
    add.add_argument("--manual_dir", help="folder of the official archives")
    add.add_argument("--skip_bad", action="store_true", help="leave out bad images")
    add.add_argument("--threads", type=int, help="that check images; one per CPU if 0")
    folder = add.add_argument_group(
        "image_folder",
        "PATH/train/CLASS/* with test, validation or val, or PATH/CLASS/*; or with --labels",
    )
    folder.add_argument("--path", help="folder; or hf:FOLDER (parquet), wds:PATTERN (tar shards)")
    folder.add_argument("--labels", help="CSV of file and class, for the images in PATH")
    folder.add_argument("--unlabelled", action="store_true", help="all images in PATH, no classes")
    folder.add_argument("--name", help="name of the new dataset")
    folder.add_argument("--convert", action="store_true", help="re-encode unusual images as PNG")
    folder.add_argument(
        "--test_fraction", type=float, help="of each class, where no split is held out; default 0.2"
    )
    folder.add_argument(
        "--channels", type=int, help="3: RGB, grey images repeated; default grey if all are grey"
    )
    folder.add_argument("--seed", type=int, help="of the draw of the test images; default 0")
    show = commands.add_parser("info", help="counts, sizes and examples of a prepared dataset")
    show.set_defaults(run=_info)
    show.add_argument("dataset", metavar="NAME", help="dataset")
    show.add_argument("--data_dir", default="", help="where it is; TFDS's default if empty")
    show.add_argument("--split", default="", help="one split, slices included; default all")
    show.add_argument("--classes", action="store_true", help="count every class")
    show.add_argument("--out", help="PNG file for a sheet of examples of the first split")
    return parser


# Option -> the kinds of datasets that it is for.
_FOR = {
    "manual_dir": ("official", "TFDS"),
    "skip_bad": ("official", "folder"),
    "threads": ("official", "folder"),
    "path": ("folder",),
    "labels": ("folder",),
    "unlabelled": ("folder",),
    "name": ("folder",),
    "convert": ("folder",),
    "test_fraction": ("folder",),
    "channels": ("folder",),
    "seed": ("folder",),
}


def _prepare(options: argparse.Namespace) -> None:
    kind = "official" if options.dataset in DEFINITIONS else "TFDS"
    kind = "folder" if options.dataset == "image_folder" else kind
    for option, kinds in _FOR.items():
        value = getattr(options, option)
        if kind not in kinds and value is not None and value is not False:
            raise ValueError(f"--{option} is not for {options.dataset!r}; leave it out")
    if kind == "TFDS":
        _prepare_from_catalog(options)
        return
    if kind == "folder":
        for option in ("path", "name"):
            if not getattr(options, option):
                raise ValueError(f"image_folder needs --{option}")
        image_folder.check_name(options.name)
    _prepare_checked(options)


def _prepare_from_catalog(options: argparse.Namespace) -> None:
    name = options.dataset
    if options.manual_dir and not Path(options.manual_dir).is_dir():
        raise ValueError(f"manual_dir {options.manual_dir!r} is not a folder; correct the path")
    done = catalog.prepare_from_catalog(name, options.data_dir, options.manual_dir or "", True)
    print(f"{name}: {_DONE[done]}")
    print(info.describe(prepared.find(name, options.data_dir)))


_DONE = {
    "prepared": "prepared",
    "converted": "array_record files added next to those in tfrecord",
    "found": "already prepared",
}


def _prepare_checked(options: argparse.Namespace) -> None:
    """Prepares a dataset of ours or an image folder."""
    name, start = options.name or options.dataset, time.monotonic()
    target = dataset_path(name, options.data_dir)
    if is_complete(target):
        if options.path:
            _check_same_images(options)
        print(f"{name}: already prepared in {target}; remove that folder to prepare it again")
        return
    if options.path:
        definition = own_images.define(_as_own_images(options))
        own_images.announce(definition)
        unusual = "convert" if options.convert else "refuse"
    else:
        definition = DEFINITIONS[name](Path(options.manual_dir) if options.manual_dir else None)
        unusual = "keep"
    report = prepare(
        name, definition, options.data_dir, options.skip_bad, unusual, options.threads or 0, True
    )
    _print_report(name, report, len(definition.class_names), time.monotonic() - start)
    if report.left_out:
        print(*_list_problems(options, report.left_out, "were left out"), sep="\n")
    else:
        _problems_path(options).unlink(missing_ok=True)


def _as_own_images(options: argparse.Namespace) -> own_images.OwnImages:
    return own_images.OwnImages(
        options.path, options.labels or "", options.unlabelled, options.test_fraction,
        options.seed or 0, options.channels,
    )  # fmt: skip


def _check_same_images(options: argparse.Namespace) -> None:
    """Raises ValueError unless the dataset of this name was made of what the options say."""
    made_of = prepared.find(options.name, options.data_dir).info.description
    asked = own_images.describe(_as_own_images(options))
    if made_of != asked:
        target = dataset_path(options.name, options.data_dir)
        raise ValueError(
            f"{options.name} is already prepared in {str(target)!r}, of something else: "
            f"{made_of!r} instead of {asked!r}; choose another --name, or remove that folder to "
            "prepare it again"
        )


def _print_report(name: str, report: Report, num_classes: int, seconds: float) -> None:
    size = sum(file.stat().st_size for file in report.path.iterdir())
    print(f"{name}: {format_classes(num_classes)} in {report.path}")
    for split, count in report.counts.items():
        print(f"  {split}: {count:,} images")
    traits = ", ".join(f"{count:,} {trait}" for trait, count in sorted(report.traits.items()))
    if traits:
        print(f"  {'converted to PNG' if report.converted else 'stored as they are'}: {traits}")
    print(f"  {size / 1e6:,.1f} MB in {seconds:,.0f} s")


def _problems_path(options: argparse.Namespace) -> Path:
    name = options.name or options.dataset
    return dataset_path(name, options.data_dir).parents[1] / f"{name}_problems.txt"


def _list_problems(options: argparse.Namespace, problems: Sequence[str], what: str) -> list[str]:
    """Writes all problems to a file and returns the lines for the screen."""
    path = _problems_path(options)
    path.write_text("\n".join(problems) + "\n", "utf-8", "backslashreplace")
    more = [f"  ... and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
    shown = [f"  {line}" for line in problems[:_SHOWN]]
    return [f"images that {what}: {len(problems):,}, all listed in {path}", *shown, *more]


def _advice(options: argparse.Namespace) -> str:
    advice = "mend them or " + (
        "add others" if options.skip_bad else "leave them out with --skip_bad"
    )
    if options.path and not options.convert:
        advice += (
            ", or re-encode those that are grey, CMYK, alpha, 16-bit, palette, rotated, damaged or "
            "read differently with --convert; where grey ones belong, --channels=3"
        )
    return advice


def _info(options: argparse.Namespace) -> None:
    if options.out:
        pictures.check_png_path(options.out)
    builder, splits = info.open_splits(options.dataset, options.data_dir, options.split)
    print(info.describe(builder))
    for source in splits:
        print(info.describe_split(source, info.scan(source), options.classes))
    if options.out:
        try:
            pictures.write_png(options.out, info.sheet(splits[0]))
        except OSError as error:
            raise ValueError(f"cannot write {options.out!r} ({error}); choose another") from error
        print(f"{options.out}: examples of {splits[0].split}")


if __name__ == "__main__":
    sys.exit(main())
