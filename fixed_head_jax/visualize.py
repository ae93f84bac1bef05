"""Pictures of what a run sees, and where.

    python -m fixed_head_jax.visualize augment --config=digits --out=x.png

shows training images as evaluation takes them, each beside draws of its augmentation. Config keys
are set as for main.py: `--config.augment.mixup=0.2`.

    python -m fixed_head_jax.visualize maps --workdir=RUN --images PHOTOGRAPHS --out=x.png

shows photographs beside the maps of their most probable classes, of the least probable one, or of
`--classes=cat,dog`, at the size of training or at others: `--size=224,448`.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from fixed_head_jax.configs.common import KEYS, settle
from fixed_head_jax.data.loader import disk_batches
from fixed_head_jax.display.pictures import check_png_path, contact_sheet, write_png
from fixed_head_jax.inference import load
from fixed_head_jax.inference.files import find_images
from fixed_head_jax.inference.map_sheet import map_sheet
from fixed_head_jax.settings import config_flag
from fixed_head_jax.settings.command_line import Parser, user_errors
from fixed_head_jax.tasks import NEEDS
from fixed_head_jax.training import experiment
from fixed_head_jax.training.experiment.images import host_crops, make_augments


def load_config(argument: str, overrides: Sequence[str] = ()) -> Any:
    """Returns the config of a file, with other values, as main.py takes them.

    Args:
        argument: "digits" or "digits:variant", or a file's path in its place.
        overrides: "--config.KEY=VALUE" each, in any form of a flag.

    Raises:
        ValueError: if there is no such file, variant or key, or a value does not fit its key.
    """
    return settle(config_flag.load([f"--config={argument}", *overrides], KEYS))


def augmentation_sheet(
    config: Any, examples: int = 6, draws: int = 8, cell: int = 128
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the augmentation of a config, the host's random crop included.

    Args:
        config: every key of `configs/common.py`.
        examples: rows, training images drawn by the config's seed. They are one batch: where the
            config mixes, the first row is mixed with the last, and so on.
        draws: columns beside the first, which shows the image as evaluation takes it, with the name
            of its class. Below a mixed image stands the share of that class. Where the task takes
            views, all views of a draw stand side by side.
        cell: side of an image on the sheet, in pixels.

    Raises:
        ValueError: on anything the config gets wrong, or a number that is out of range.
    """
    for name, value in (("examples", examples), ("draws", draws)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    config.num_devices = 1
    run = experiment.build(config, read_weights=False)
    config, source = run.config, run.train_data.source
    takes_views = NEEDS[config.task.name].views
    if examples > len(source):
        raise ValueError(f"examples={examples}, but the training split has {len(source)}")
    train_augment, eval_augment = make_augments(config, source, takes_views)
    random = np.random.default_rng(config.seed)
    index = random.choice(len(source), examples, replace=False).astype(np.int32)
    read = partial(disk_batches, source, lambda step: index, examples, 0, num_threads=1)
    (whole,) = read(num_steps=1)
    names = [source.class_names[label] if label >= 0 else "" for label in whole["label"]]
    columns = [zip(_levels(eval_augment(jnp.asarray(whole["image"])), config), names, strict=True)]
    heads = ["as evaluated"]
    train_augment, rng = jax.jit(train_augment), jax.random.key(config.seed)
    crops = host_crops(config, takes_views)
    for draw, batch in enumerate(read(num_steps=draws, crops=crops, seed=config.seed)):
        rngs = jax.random.split(jax.random.fold_in(rng, draw), examples + 1)
        batch = train_augment(rngs[:-1], rngs[-1], batch)
        views = [batch["image"]] if "image" in batch else [*batch["global"], *batch["local"]]
        for number, view in enumerate(views, start=1):
            heads.append(f"draw {draw + 1}" + f", view {number}" * takes_views)
            columns.append(zip(_levels(view, config), _shares(batch, names), strict=True))
    images, captions = zip(*itertools.chain(*zip(*columns, strict=True)), strict=True)
    return contact_sheet(images, len(columns), cell, captions, heads)


def _shares(batch, names):
    """Returns the share that every example keeps of its own label, as text; "" if not mixed."""
    if "targets" not in batch:
        return [""] * len(batch["label"])
    targets, labels = np.asarray(batch["targets"]), np.asarray(batch["label"])
    shares = targets[np.arange(len(labels)), labels]
    return [f"{share:.0%} {name}" for share, name in zip(shares, names, strict=True)]


def _levels(images: Float[jax.Array, "b h w c"], config: Any) -> UInt8[np.ndarray, "b h w c"]:
    """Undoes the normalisation."""
    pixels = np.asarray(images) * np.asarray(config.data.std) + np.asarray(config.data.mean)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = Parser("python -m fixed_head_jax.visualize", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    augment = commands.add_parser("augment", help="a sheet of augmented training images")
    augment.add_argument("--config", required=True, help="NAME or NAME:VARIANT, or a file")
    augment.add_argument("--out", required=True, help="the PNG file to write")
    augment.add_argument("--examples", type=int, default=6, help="rows")
    augment.add_argument("--draws", type=int, default=8, help="augmented images in a row")
    augment.add_argument("--cell", type=int, default=128, help="side of an image in pixels")
    augment.set_defaults(draw=_draw_augment)
    maps = commands.add_parser("maps", help="where a trained network sees which class")
    maps.add_argument("--workdir", required=True, help="of the run")
    maps.add_argument("--images", required=True, nargs="+", help="files, folders, patterns")
    maps.add_argument("--out", required=True, help="the PNG file to write")
    maps.add_argument("--classes", type=_listed, default=[], help="names, separated by commas")
    maps.add_argument("--top_k", type=int, default=3, help="most probable classes, without names")
    maps.add_argument("--size", type=_sizes, default=[], help="in pixels, such as 224,448")
    maps.add_argument("--scale", choices=("joint", "each"), default="joint", help="of the colours")
    maps.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint")
    maps.set_defaults(draw=_draw_maps)
    options, overrides = parser.parse_known_args(arguments)
    with user_errors(parser):
        check_png_path(options.out)
        write_png(options.out, options.draw(options, overrides))


def _draw_augment(options, overrides):
    config = load_config(options.config, overrides)
    return augmentation_sheet(config, options.examples, options.draws, options.cell)


def _draw_maps(options, others):
    if others:
        raise ValueError(f"unknown argument {others[0]!r}")
    if options.top_k < 1:
        raise ValueError(f"--top_k={options.top_k} must be at least 1")
    predictor, images = load(options.workdir, options.which), list(find_images(options.images))
    return map_sheet(
        predictor, images, classes=options.classes, top_k=options.top_k, sizes=options.size,
        is_joint=options.scale == "joint",
    )  # fmt: skip


def _listed(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def _sizes(text):
    return [int(size) for size in _listed(text)]


if __name__ == "__main__":
    main()
