"""A page on which a trained model looks at photographs: classes, and maps that move with the size.

python -m fixed_head_jax.demo RUN
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fixed_head_jax.display.class_maps import overlay, scale_maps
from fixed_head_jax.inference import Predictor, load
from fixed_head_jax.inference.maps import check_maps, class_maps
from fixed_head_jax.settings.command_line import Parser, user_errors

MOST_PROBABLE = "most probable"
LAUNCH = {"footer_links": [], "ssr_mode": False}  # the page as it is, by one process
_SIDE = 512  # of a picture in pixels
_LARGEST = 4  # times the size of training


class Look(NamedTuple):
    """What a model says of a photograph.

    Attributes:
        probabilities: by class name, the most probable first.
        picture: the map of a class over the photograph; None where the model has no maps.
        caption: what the picture shows.
    """

    probabilities: dict[str, float]
    picture: UInt8[np.ndarray, "s s 3"] | None
    caption: str


def look(
    predictor: Predictor,
    photograph: Any,
    size: int,
    class_name: str = MOST_PROBABLE,
    top_k: int = 5,
) -> Look:
    """Classifies a photograph at a size and draws where the model sees a class.

    Args:
        predictor: of `inference.load`.
        photograph: as its call takes it.
        size: side of the square that it is seen at, in pixels.
        class_name: whose map is drawn.
        top_k: classes in the answer.

    Raises:
        ValueError: if it cannot be read, or the network cannot see images of that size.
    """
    is_other = size != predictor.preprocessing.image_shape[0]
    seen = predictor.at_size(size) if is_other else predictor
    pixels = seen.fit(photograph)
    predictions = seen.outputs(pixels[None])
    (best,) = seen.top_k(predictions, top_k)
    if reason := missing_maps(seen):
        return Look(dict(best), None, reason)
    name = best[0][0] if class_name == MOST_PROBABLE else class_name
    number = jnp.array([seen.class_names.index(name)])
    maps = np.asarray(class_maps(seen.model, seen.variables, predictions.feature_map, number)[0])
    height, width = maps.shape[:2]
    caption = f"Where {name} is seen, at {size} pixels: {height} x {width} places."
    return Look(dict(best), overlay(pixels, scale_maps(maps)[..., 0], _SIDE), caption)


def missing_maps(predictor: Predictor) -> str:
    """Returns why a model has no class maps; an empty text where it has them."""
    try:
        check_maps(predictor.model)
    except ValueError as error:
        return f"No class maps: {error}."
    return ""


def sizes(predictor: Predictor) -> tuple[int, int, int]:
    """Returns the smallest and the largest size of the slider, and its step."""
    trained = predictor.preprocessing.image_shape[0]
    step = max(trained // 4, 1)
    return step * max(trained // step // 2, 1), _LARGEST * trained, step


def build_page(predictor: Predictor, top_k: int = 5) -> Any:
    """Returns the page, blocks of Gradio, which is loaded here.

    Raises:
        ValueError: if Gradio is not installed.
    """
    _check_gradio()
    import gradio

    smallest, largest, step = sizes(predictor)
    trained = predictor.preprocessing.image_shape[0]

    def answer(photograph, size, class_name):
        if photograph is None:
            return None, None, ""
        try:
            return look(predictor, photograph, int(size), class_name, top_k)
        except (ValueError, TypeError) as error:  # of shapes that do not fit, too
            raise gradio.Error(" ".join(str(error).split())) from error

    def choose(event: gradio.SelectData):
        return event.value

    with gradio.Blocks(title=predictor.name) as page:
        gradio.Markdown(f"### {predictor.name}\n{len(predictor.class_names):,} classes")
        with gradio.Row():
            with gradio.Column():
                photograph = gradio.Image(
                    type="pil", label="photograph", image_mode=None, height=360,
                    sources=["upload", "webcam", "clipboard"],
                )  # fmt: skip
                size = gradio.Slider(
                    smallest, largest, trained, step=step, label="seen at (pixels)",
                    interactive=missing_maps(predictor) == "" and _is_square(predictor),
                )  # fmt: skip
                names = [MOST_PROBABLE, *predictor.class_names]
                class_name = gradio.Dropdown(names, value=MOST_PROBABLE, label="map of the class")
            with gradio.Column():
                best = gradio.Label(label="most probable classes", num_top_classes=top_k)
                picture = gradio.Image(
                    label="class map", interactive=False, height=360,
                    buttons=["download", "fullscreen"],
                )  # fmt: skip
                caption = gradio.Markdown()
        inputs = [photograph, size, class_name]
        gradio.on(
            [photograph.change, size.release, class_name.change], answer, inputs,
            [best, picture, caption], show_progress="minimal",
        )  # fmt: skip
        best.select(choose, None, class_name)  # which has changed then
    return page


def _is_square(predictor):
    height, width, _ = predictor.preprocessing.image_shape
    return height == width


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = Parser("python -m fixed_head_jax.demo", description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="workdir of a run, or a name of public weights")
    parser.add_argument("--workdir", help="the same")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint")
    parser.add_argument("--top_k", type=int, default=5, help="classes to show")
    parser.add_argument("--port", type=int, default=7860, help="of this machine")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines, too")
    options = parser.parse_args(arguments)
    with user_errors(parser):
        if bool(options.run) == bool(options.workdir):
            raise ValueError("name one RUN: the workdir of a run")
        if options.top_k < 1:
            raise ValueError(f"--top_k={options.top_k} must be at least 1")
        _check_gradio()
        page = build_page(load(options.run or options.workdir, options.which), options.top_k)
        page.launch(server_name=options.host, server_port=options.port, **LAUNCH)


def _check_gradio():
    """Raises ValueError unless Gradio is installed, which then tells nobody of it."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the demo needs Gradio: pip install 'fixed_head_jax[demo]'") from error


if __name__ == "__main__":
    main()
