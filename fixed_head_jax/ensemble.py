"""Predictions of finished runs on disk, and ensembles: the mean of their class probabilities.

    python -m fixed_head_jax.ensemble RUN RUN ...

evaluates the ensemble of runs of one data set, of any backbones, heads and seeds, that were trained
with `--config.save_predictions=True`. Evaluating such a run leaves `evaluation_<step>.npz`, of
another split or of the best checkpoint, which can be named in place of the folder.
"""

from collections.abc import Sequence
from typing import Any

from fixed_head_jax.display.tables import markdown
from fixed_head_jax.evaluators.predictions import average, measure, read_predictions
from fixed_head_jax.settings.command_line import Parser, user_errors


def _table(runs: Sequence[str]) -> str:
    """Formats accuracy and loss of every run and of their ensemble."""
    rows: list[tuple[str, dict[str, Any]]] = [(run, measure(read_predictions(run))) for run in runs]
    rows.append((f"ensemble of {len(runs)}", measure(average(runs))))
    names = list(rows[-1][1])
    cells = [["run", *names]]
    cells += [[run, *(f"{metrics[name]:.6g}" for name in names)] for run, metrics in rows]
    return markdown(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = Parser("python -m fixed_head_jax.ensemble")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="workdir, or .npz file")
    options = parser.parse_args(arguments)
    with user_errors(parser):
        print(_table(options.runs), end="")


if __name__ == "__main__":
    main()
