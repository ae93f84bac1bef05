"""Runs an experiment of several stages, each of which may start from the weights of another."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fixed_head_jax.storage.files import write_json, write_text
from fixed_head_jax.studies.report import stage_table


class Stage(NamedTuple):
    """A stage of a run: its name, its folder and how its config differs from the run's."""

    name: str
    folder: Path
    overrides: dict[str, Any]


def plan_stages(stages: Sequence[Mapping[str, Any]], workdir: str | os.PathLike) -> list[Stage]:
    """Says where every stage runs and what it starts from.

    Args:
        stages: [{"name": its folder, "overrides": config values by dotted key, "init_from": the
            name of an earlier stage (optional)}].
        workdir: the run's folder.

    Raises:
        ValueError: on no stages, a key missing, a name twice or no earlier stage of that name.
    """
    if not stages:
        raise ValueError("an experiment in stages needs at least one stage, got none")
    plan, folders = [], dict[str, Path]()
    for stage in stages:
        if not stage.get("name") or "overrides" not in stage:
            raise ValueError(f"stage {dict(stage)} needs a name and overrides")
        name, overrides = stage["name"], dict(stage["overrides"])
        if Path(name).name != name or name in folders:
            raise ValueError(f"stage name {name!r} must be usable as a folder's name, and once")
        source = stage.get("init_from")
        if source is not None:
            if source not in folders:
                raise ValueError(
                    f"stage {name!r} starts from {source!r}, which is no earlier stage; "
                    f"earlier: {', '.join(folders) or 'none'}"
                )
            overrides["init_from"] = str(folders[source])
        folders[name] = Path(workdir) / name
        plan.append(Stage(name, folders[name], overrides))
    return plan


def run_stages(
    plan: Sequence[Stage],
    run_stage: Callable[[Stage], Mapping[str, Any]],
    workdir: str | os.PathLike,
    is_main: bool = True,
) -> dict[str, Any]:
    """Runs the stages in turn and leaves `stages.md` and `result.json` in `workdir`.

    Args:
        plan: of `plan_stages`.
        run_stage: trains one, or goes on with it, and returns its metrics; one that is finished
            returns them at once.
        workdir: the run's folder.
        is_main: whether this process writes files and prints.

    Returns:
        The last stage's metrics, and those of all as "<stage>/<metric>".
    """
    results = {}
    for number, stage in enumerate(plan, start=1):
        if is_main:
            print(f"stage {number}/{len(plan)}: {stage.folder}", flush=True)
        results[stage.name] = dict(run_stage(stage))
    merged = {f"{name}/{key}": v for name, each in results.items() for key, v in each.items()}
    merged |= results[plan[-1].name]
    if is_main:
        table = stage_table(results)
        write_text(Path(workdir) / "stages.md", table)
        write_json(Path(workdir) / "result.json", merged)
        print("\n" + table.rstrip())
    return merged
