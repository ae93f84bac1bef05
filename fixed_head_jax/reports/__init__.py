"""Reports: what came of a run or of several, as one file of HTML that needs no network."""

from pathlib import Path

from fixed_head_jax.reports.run import run_report
from fixed_head_jax.reports.study import REPORT, study_report
from fixed_head_jax.storage.files import write_text


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html` of the run, or the runs, in a workdir, and returns its path.

    Raises:
        ValueError: if there is no run.
    """
    folder = Path(workdir)
    is_run = (folder / "checkpoints").is_dir()
    write_text(folder / REPORT, run_report(folder) if is_run else study_report(folder))
    return folder / REPORT
