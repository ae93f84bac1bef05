"""The report of several runs: of stages, a sweep or a search."""

from pathlib import Path

from fixed_head_jax.reports import page as html
from fixed_head_jax.storage.workdir import find_runs

REPORT = "report.html"


def study_report(workdir: Path) -> str:
    """Returns the page of a study: its tables, its charts and links to the reports of its runs.

    Raises:
        ValueError: if there is no run in the folder.
    """
    runs = find_runs(workdir)
    tables = sorted(path for path in workdir.glob("*.md") if path.name != "groups.md")
    parts = [
        html.section(
            path.stem.capitalize(),
            html.markdown_table(path.read_text(encoding="utf-8")),
            _chart(path.with_suffix(".png")),
        )
        for path in tables
    ]
    linked = {
        run.relative_to(workdir).as_posix(): f"{run.relative_to(workdir).as_posix()}/{REPORT}"
        for run in runs
        if (run / REPORT).exists()
    }
    parts.append(html.section("Runs", html.links(linked)))
    return html.page(workdir.resolve().name, f"{len(runs):,} runs; workdir {workdir}", parts)


def _chart(path):
    return html.picture(path.read_bytes(), path.name, is_wide=True) if path.exists() else ""
