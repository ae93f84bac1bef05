"""Times augmentation on the device, beside a training step and beside Pillow, in turn.

Prints two JSON lines, medians over rounds in which each has its turn:

* `step`: RandAugment, mixup 0.2, normalisation and random erasing (pixel, 0.5) of a batch, as one
  jitted function, against a ResNet-50 training step (forward, backward, SGD; float32, the one of
  `step_time.py`) of `--step_batch` images of the same size; both in ms that pass, per image.
* `pillow`: RandAugment alone against the same policy in Pillow on images in memory, in ms of one
  core per image (the time of all cores together; on an accelerator ours is the time that passes).

The images are crops of two photographs. Other processes on the same cores distort the numbers:
`others_percent` is the share of the machine that they took in each round (Linux), `quiet` says
that it stayed under 10 %.

    python benchmarks/augment.py --out results/augment.jsonl
"""

import argparse
import datetime
import json
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import flax
import jax
import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image
from step_time import clocks, make_step, others_percent

from fixed_head_jax.augment import color, mix, policies

POLICY = "rand-m9-mstd0.5-inc1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = tuple(round(255 * level) for level in MEAN)
CLASSES = 1000


def make_images(batch: int, resolution: int) -> np.ndarray:
    """Returns crops [batch, resolution, resolution, 3] of photographs of 427 x 640 pixels."""
    rng = np.random.default_rng(0)
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    crops = []
    for index in range(batch):
        photograph = photographs[index % 2]
        top, left = (rng.integers(0, side - resolution + 1) for side in photograph.shape[:2])
        crops.append(photograph[top : top + resolution, left : left + resolution])
    return np.stack(crops)


def make_parts() -> dict:
    """Returns the parts of the chain, `(rngs, images, targets) -> (images, targets)`."""
    policy = policies.make_policy(POLICY, FILL)

    def mixup(rngs, images, targets):
        shares = mix.draw_shares(rngs[0], *images.shape[1:3], mixup_alpha=0.2)
        return mix.mix(images, targets, shares)

    def normalize(_, images, targets):
        return color.normalize(color.to_float(images), MEAN, STD), targets

    return {
        "randaugment": lambda rngs, images, targets: (policy(rngs, images), targets),
        "mixup": mixup,
        "normalize": normalize,
        "erase": lambda rngs, images, targets: (mix.erase(rngs, images, 0.5, "pixel"), targets),
    }


def compile_parts(batch: int, resolution: int) -> dict:
    """Returns functions without arguments: each part, on what the one before gives, and `chain`."""
    parts = make_parts()

    def chain(rngs, images, targets):
        for part in parts.values():
            images, targets = part(rngs, images, targets)
        return images, targets

    rngs = jax.random.split(jax.random.key(0), batch)
    first = jax.device_put((make_images(batch, resolution), np.eye(batch, CLASSES, dtype="f4")))
    runs, arrays = {"chain": partial(jax.jit(chain), rngs, *first)}, first
    for name, part in parts.items():
        runs[name] = partial(jax.jit(part), rngs, *arrays)
        arrays = runs[name]()
    jax.block_until_ready(runs["chain"]())
    return runs


def change(image: Image.Image, name: str, magnitude: float, sign: int) -> Image.Image:
    """Does one of timm's operations in Pillow, at a magnitude of 0 ... 10 in the increasing set."""
    method = random.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))
    signed, levels = sign * magnitude, range(256)

    def affine(*numbers):
        return image.transform(image.size, Image.Transform.AFFINE, numbers, method, fillcolor=FILL)

    def enhance(enhancer):
        return enhancer(image).enhance(1 + 0.09 * signed)

    def add(level):
        return min(level + int(11 * magnitude), 255) if level < 128 else level

    return {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, max(4 - int(0.4 * magnitude), 1)),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(25.6 * magnitude)),
        "solarize_add": lambda: image.point([add(level) for level in levels] * 3),
        "brightness": lambda: enhance(ImageEnhance.Brightness),
        "contrast": lambda: enhance(ImageEnhance.Contrast),
        "color": lambda: enhance(ImageEnhance.Color),
        "sharpness": lambda: enhance(ImageEnhance.Sharpness),
        "rotate": lambda: image.rotate(3 * signed, method, fillcolor=FILL),
        "shear_x": lambda: affine(1, 0.03 * signed, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, 0.03 * signed, 1, 0),
        "translate_x": lambda: affine(1, 0, 0.045 * signed * image.width, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, 0.045 * signed * image.height),
    }[name]()


def randaugment_by_pillow(images: list[Image.Image]) -> None:
    """Does the policy to each image, in Pillow."""
    for image in images:
        for name in random.choices(policies.OPERATIONS[1:], k=2):
            if random.random() < 0.5:
                magnitude = min(max(random.gauss(9, 0.5), 0), 10)
                image = change(image, name, magnitude, random.choice((-1, 1)))


def timed(run, images: int) -> tuple[float, float]:
    """Returns the ms that a run takes per image, and the ms of all cores together."""
    passed, own = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return 1e3 * (time.perf_counter() - passed) / images, 1e3 * (time.process_time() - own) / images


def measure(options: argparse.Namespace) -> tuple[dict, list]:
    """Returns what `timed` says of each round, by name, and the others' share of each round."""
    runs = compile_parts(options.batch, options.resolution)
    pillow_images = [Image.fromarray(x) for x in make_images(options.batch, options.resolution)]
    runs["pillow"] = lambda: randaugment_by_pillow(pillow_images)
    step, state = make_step("resnet50", options.step_batch, options.resolution, CLASSES)

    def run_step():
        nonlocal state
        state, loss = step(state)
        return loss

    jax.block_until_ready([run_step(), run_step()])
    rounds, others = {name: [] for name in (*runs, "step")}, []
    for _ in range(options.rounds):
        start = clocks()
        for name, run in runs.items():
            rounds[name].append(timed(run, options.batch))
        rounds["step"].append(timed(run_step, options.step_batch))
        others.append(others_percent(start, clocks()))
    return rounds, others


def report(options: argparse.Namespace, rounds: dict, others: list) -> list[dict]:
    """Returns the two lines."""
    median = {name: np.median(turns, axis=0) for name, turns in rounds.items()}
    passed = {name: round(float(times[0]), 4) for name, times in median.items()}
    core = int(jax.default_backend() == "cpu")
    ours, pillow = (round(float(median[name][core]), 4) for name in ("randaugment", "pillow"))
    percents = [100 * a[0] / b[0] for a, b in zip(rounds["chain"], rounds["step"], strict=True)]
    step_line = {
        "compared": "step",
        "chain_ms": passed.pop("chain"),
        "step_ms": passed.pop("step"),
        "percent": round(statistics.median(percents), 3),
        "percent_rounds": [round(percent, 3) for percent in percents],
        "parts_ms": {name: time for name, time in passed.items() if name != "pillow"},
        "model": "resnet50",
        "step_batch": options.step_batch,
        "step_dtype": "float32",
    }
    pillow_line = {
        "compared": "pillow",
        "ours_core_ms": ours,
        "pillow_core_ms": pillow,
        "ratio": round(ours / pillow, 3),
        "ours_passed_ms": passed["randaugment"],
    }
    shared = {
        "policy": POLICY,
        "batch": options.batch,
        "resolution": options.resolution,
        "rounds": options.rounds,
        "others_percent": others,
        "quiet": all(share is not None and share < 10 for share in others),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "pillow": PIL.__version__},
        "device": jax.devices()[0].device_kind,
        "command": " ".join(["python benchmarks/augment.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
    }
    return [{**line, **shared} for line in (step_line, pillow_line)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images of the chain")
    parser.add_argument("--resolution", type=int, default=224, help="pixels, at most 427")
    parser.add_argument("--step_batch", type=int, default=16, help="images of the training step")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    return parser.parse_args()


def main() -> None:
    options = parse()
    random.seed(0)
    lines = [json.dumps(line) + "\n" for line in report(options, *measure(options))]
    sys.stdout.writelines(lines)
    if options.out:
        with options.out.open("a") as file:
            file.writelines(lines)


if __name__ == "__main__":
    main()
