"""A run's settings and rounds in MLflow, by the package that the user has."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import HeadstartError
from .follow import points
from .runs import flat, read_run

_LONGEST = 500  # of a parameter, in the oldest version of MLflow that is still about
_AT_ONCE = 100  # parameters that one call may log


def log(folder: Path, experiment: str | None, follow: bool) -> str:
    """Logs the run in `folder`: its settings as parameters, its rounds as metrics with the round as step, its documents as
    artifacts. Where it goes is for MLflow to know (MLFLOW_TRACKING_URI). Returns MLflow's name of the run."""
    run = read_run(folder)
    try:
        import mlflow
    except ModuleNotFoundError:
        raise HeadstartError("this needs the package mlflow, which is not installed here: pip install mlflow") from None
    if experiment:
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=folder.resolve().name) as made:
        settings = {name: str(value) for name, value in flat(run.settings.get("config", {}))}
        names = list(settings)
        for begin in range(0, len(names), _AT_ONCE):
            mlflow.log_params({name: settings[name][:_LONGEST] for name in names[begin:begin + _AT_ONCE]})
        mlflow.set_tags({"headstart.version": str(run.settings.get("version", "")),
                         "headstart.architecture": str(run.settings.get("architecture", "")),
                         "headstart.terms": str(run.settings.get("terms", ""))})
        for point in points(folder, follow):
            mlflow.log_metrics({_name_of(name): value for name, value in point.numbers.items()}, step=point.round)
        for name in ("run.json", "rounds.jsonl", "summary.json", "interrupted.json"):
            if (folder / name).exists():
                mlflow.log_artifact(str(folder / name))
        return str(made.info.run_id)


def _name_of(name: str) -> str:
    """MLflow takes letters, digits and a few marks; names of classes may have others."""
    return re.sub(r"[^\w\-. /]", "_", name)
