"""Times prediction on many files, and takes the memory that it needs: it must not grow with them.

Links the images of a folder under new names as often as a count asks for, lets the program
classify them, and prints images/s (of the whole command, its start and compiling left in) and the
largest resident memory of its process.

    python benchmarks/predict.py --workdir=RUN --images=FOLDER --counts=2000,20000,100000
"""

import argparse
import datetime
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from fixed_head_jax.data.preparing.image_folder import find_images
from fixed_head_jax.display.tables import markdown


def link_images(images: list[Path], folder: Path, count: int) -> None:
    """Fills a folder with `count` links to images, a thousand in each folder in it."""
    for number, image in enumerate(itertools.islice(itertools.cycle(images), count)):
        inner = folder / f"{number // 1000:04}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{number:07}{image.suffix}").symlink_to(image.resolve())


def predict(workdir: str, folder: Path) -> tuple[float, float]:
    """Returns the seconds and the largest memory in MiB of a prediction of a folder."""
    command = ["fixed-head", "predict", workdir, str(folder)]
    start = time.monotonic()
    process = subprocess.Popen([*command, f"--out={folder}.csv"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="a trained run")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--counts", default="2000,20000", help="of files, the small one first")
    options = parser.parse_args()
    images = list(find_images(options.images))
    cells = [["files", "images/s", "largest memory (MiB)"]]
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            link_images(images, Path(scratch, "images"), count)
            seconds, memory = predict(options.workdir, Path(scratch, "images"))
        cells.append([f"{count:,}", f"{count / seconds:,.0f}", f"{memory:,.0f}"])
    print(markdown(cells))
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("jax", "numpy", "pillow"))
    print(f"{datetime.date.today()}, python {platform.python_version()} {versions}")


if __name__ == "__main__":
    main()
