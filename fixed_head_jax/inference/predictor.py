"""A trained model with all that it needs to look at photographs."""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from fixed_head_jax import pretrained
from fixed_head_jax.augment import Options, make_augment
from fixed_head_jax.configs.common import from_record
from fixed_head_jax.data.crops import resize_and_crop
from fixed_head_jax.data.decoding import as_pixels, decode_upright
from fixed_head_jax.storage.checkpoint import read_variables
from fixed_head_jax.storage.workdir import MODEL, find_runs, read_config
from fixed_head_jax.tasks import NEEDS
from fixed_head_jax.training.experiment import make_model, make_task


class Preprocessing(NamedTuple):
    """What makes an image of any size the model's input, as evaluation in training does.

    Attributes:
        image_shape: (height, width, channels) that the model takes.
        resize_size: pixels of the shorter side before the centre crop; 0: the height.
        interpolation: of that, see `crops.resize_and_crop`.
        mean: of pixels in 0 ... 1, per channel or one for all.
        std: likewise.
    """

    image_shape: tuple[int, int, int]
    resize_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def read(self, encoded: bytes) -> UInt8[np.ndarray, "h w c"]:
        """Decodes an image file, turns it upright and fits it; raises ValueError on a bad one."""
        return self.fit(decode_upright(encoded, self.image_shape[2]))

    def fit(self, pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        """Brings pixels to the image shape; those that have it are left as they are."""
        height, width, channels = self.image_shape
        if pixels.shape[2] != channels:
            raise ValueError(f"image has {pixels.shape[2]} channels, the model takes {channels}")
        if pixels.shape == self.image_shape and not self.resize_size:
            return pixels
        if height != width:
            raise ValueError(f"image is {pixels.shape[:2]} where all must be {height} x {width}")
        return resize_and_crop(pixels, height, self.resize_size, self.interpolation)


class Predictions(NamedTuple):
    """What a model says of B images.

    Attributes:
        probabilities: of the K classes, [B, K]; of clusters where it learned without labels.
        features: before the head, [B, D].
        feature_map: before the pooling, [B, h, w, C].
    """

    probabilities: Float32[np.ndarray, "b k"]
    features: Float32[np.ndarray, "b d"]
    feature_map: Float32[np.ndarray, "b h w c"]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model; call it with images of any sizes. Build it with `load`.

    Attributes:
        name: what it was loaded from, for people.
        model: a classifier of `get_model`.
        variables: of the model, {"params", "batch_stats"?, "fixed"?}.
        preprocessing: from an image of any size to what the model takes.
        class_names: of the K columns of its probabilities.
        batch_size: images that it looks at together, >= 1.
        temperature: divides the logits in the probabilities, > 0.
    """

    name: str
    model: Any
    variables: dict[str, Any]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    batch_size: int = 32
    temperature: float = 1.0

    def __call__(self, images: Sequence[Any] | np.ndarray) -> Predictions:
        """Classifies images.

        Args:
            images: of any sizes and formats: uint8 arrays [h, w, c] or [h, w], or an array
                [B, h, w, c] of them; images of Pillow; paths of files.

        Returns:
            Of each image, in their order.

        Raises:
            ValueError: if there are none, or one cannot be read.
        """
        if not len(images):
            raise ValueError("images must hold at least one image, got none")
        fitted = [self.fit(image) for image in images]
        parts = [
            self.outputs(np.stack(fitted[start : start + self.batch_size]))
            for start in range(0, len(fitted), self.batch_size)
        ]
        return Predictions(*map(np.concatenate, zip(*parts, strict=True)))

    def outputs(self, images: UInt8[np.ndarray, "b h w c"]) -> Predictions:
        """Classifies at most `batch_size` images of the size that the model takes, see the call.

        They are padded to a power of two, so that few sizes are compiled.
        """
        count = len(images)
        padded = min(1 << (count - 1).bit_length(), self.batch_size)
        images = np.pad(images, ((0, padded - count), (0, 0), (0, 0), (0, 0)))
        return Predictions(*(part[:count] for part in jax.device_get(self._program(images))))

    def at_size(self, size: int) -> "Predictor":
        """Returns the predictor of photographs at another size, in pixels: see them more finely.

        Whole: the centre crop that evaluation makes at the size of training is not made.
        """
        shape = (size, size, self.preprocessing.image_shape[2])
        preprocessing = self.preprocessing._replace(image_shape=shape, resize_size=0)
        return dataclasses.replace(self, preprocessing=preprocessing)

    def fit(self, image: Any) -> UInt8[np.ndarray, "h w c"]:
        """Returns the pixels of an image, see the call, as the model takes them."""
        if isinstance(image, str | Path):
            return self.preprocessing.read(Path(image).read_bytes())
        channels = self.preprocessing.image_shape[2]
        return self.preprocessing.fit(as_pixels(image, channels))

    def probabilities(self, logits: Float[Array, "b k"]) -> Float32[Array, "b k"]:
        """Returns the probabilities that the model's logits stand for."""
        return jax.nn.softmax(logits.astype(jnp.float32) / self.temperature)

    def top_k(self, predictions: Predictions, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns of each image the k most probable classes, by name, and their probabilities."""
        best = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(predictions.probabilities, best, 1)
        return [
            [(self.class_names[index], float(value)) for index, value in zip(*row, strict=True)]
            for row in zip(best, values, strict=True)
        ]

    @cached_property
    def _program(self):
        shape, (mean, std) = self.preprocessing.image_shape, self.preprocessing[-2:]
        _, normalize = make_augment(shape, len(self.class_names), mean, std, Options())
        variables = jax.device_put(self.variables)

        @jax.jit
        def program(variables, images):
            outputs = self.model.apply(variables, normalize(images), train=False)
            probabilities = self.probabilities(outputs["logits"])
            return probabilities, outputs["features"], outputs["feature_map"]

        return lambda images: program(variables, images)


def load(workdir: str | Path, which: str = "best") -> Predictor:
    """Loads the model of a run; its folder is all that is needed, on any machine.

    Args:
        workdir: of a run, or of an experiment of one stage or row; or a name of public weights,
            "timm:NAME" or "torchvision:NAME", see `pretrained.load_classifier`.
        which: its "best" checkpoint, by `best_metric`, or the "last".

    Raises:
        ValueError: if there is no run or no checkpoint, or several runs to choose from; of public
            weights, if they are not known, have no classifier or cannot be downloaded.
    """
    if classifier := pretrained.load_classifier(workdir):
        model, variables, expected = classifier
        preprocessing = Preprocessing(
            (expected.image_size, expected.image_size, 3), expected.resize_size,
            expected.interpolation, expected.mean, expected.std,
        )  # fmt: skip
        names = pretrained.imagenet_class_names()
        return Predictor(str(workdir), model, variables, preprocessing, names)
    folder = _find_run(Path(workdir))
    record = read_config(folder)
    config, file = from_record(record), folder / MODEL
    if not file.exists():
        raise ValueError(
            f"{str(folder)!r} has no {MODEL}: it was trained by an older version; give its command "
            "again, which writes it without training anew"
        )
    described = json.loads(file.read_text(encoding="utf-8"))
    class_names, image_shape = described["class_names"], tuple(described["image_shape"])
    model = make_model(config, len(class_names))
    variables = read_variables(folder, which)
    data = config.data
    preprocessing = Preprocessing(
        image_shape, data.resize_size, data.interpolation, data.mean, data.std
    )
    predictor = Predictor(str(workdir), model, variables, preprocessing, tuple(class_names))
    if NEEDS[config.task.name].labels:
        return predictor
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    outputs = jax.eval_shape(partial(model.apply, train=False), variables, image)
    names = tuple(f"cluster {i}" for i in range(outputs["logits"].shape[1]))
    temperature = make_task(config, model).temperature
    return dataclasses.replace(predictor, class_names=names, temperature=temperature)


def _find_run(workdir):
    """Returns the only run in a folder."""
    found = find_runs(workdir)
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found[:4]) + ", ..." * (len(found) > 4)
        raise ValueError(f"{str(workdir)!r} holds {len(found)} runs; name one of them: {names}")
    return found[0]
