"""`bigmodel-merge`: one model of several runs' weights, tested and saved as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.commands import train
from bigmodel.commands.arguments import parse_list, parse_options
from bigmodel.config.saved import load_config
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import truncate
from bigmodel.inference.predictor import Predictor, check_eval_targets, load
from bigmodel.inference.run_data import open_run_data, open_run_task
from bigmodel.interfaces import Loader, Task
from bigmodel.metric_spec import declared_specs
from bigmodel.models.weights.merging import Merge, average, check_alike
from bigmodel.runtime.device import Device
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.stdout import print_line
from bigmodel.training.evaluation import evaluate

DEFAULTS = {
    **{"runs": "", "how": "average", "weights": "", "base": "", "density": "0.2", "scale": "1"},
    **{"metric": "", "data_dir": "", "output_dir": "", "device": "auto", "trust": ""},
}
CHOICES = {"how": ("average", "greedy", "slerp", "ties"), "device": ("auto", "cpu", "cuda", "mps")}
_BATCH_SIZE = 256


def run(given: Sequence[str]) -> None:
    """Merge the runs' best checkpoints, test the result and save it in a new run directory.

    Raises:
        ConfigError: an option is wrong, or the runs are not of one model and the same data.
        BigmodelError: the result cannot be tested or saved.
    """
    settings, rest = parse_options(given, DEFAULTS, CHOICES)
    unknown = [word.partition("=")[0] for word in rest if "=" in word and not Path(word).exists()]
    if unknown:
        raise ConfigError(*(f"{word}: no such setting; {suggest(word, list(DEFAULTS))}" for word in unknown))
    paths = [*parse_list(settings["runs"]), *rest]
    trust = parse_list(settings["trust"])
    merge = _merge_settings(settings, len(paths))
    device = Device(settings["device"])  # type: ignore[arg-type]  # among the choices
    opened = {path: load(path, device, trust) for path in paths}
    _check_same(opened)
    if settings["how"] == "greedy":
        paths = _greedy(opened, settings["metric"], settings["data_dir"] or None)
    node = {"_target_": f"{Merge.__module__}.{Merge.__qualname__}", **vars(merge)}
    init: dict[str, Any] = {"_target_": "bigmodel.training.init_weights.init_weights", "from": paths[0]}
    if len(paths) > 1:
        init |= {"from": [str(Path(path).resolve()) for path in paths], "merge": node}
    values: dict[str, Any] = {"init": init, "epochs": 0, "ema": None, "output_dir": settings["output_dir"]}
    file = opened[paths[0]].run_directory / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"runs: {paths[0]} has no config.yaml, as a folder that was shared; name a run before it")
    config = load_config(file, trust)
    values = {key: value for key, value in values.items() if value != ""}
    if settings["data_dir"]:
        values["data_dir"] = settings["data_dir"]
    train.run(config.with_values(values), StopRequest())


def _merge_settings(settings: Mapping[str, str], count: int) -> Merge:
    """Return the typed settings.

    Raises:
        ConfigError: a value is no number, or the settings do not go with so many runs.
    """
    how = "average" if settings["how"] == "greedy" else settings["how"]
    if settings["how"] == "greedy" and settings["weights"]:
        raise ConfigError("weights: greedy chooses among the runs; use how=average")
    if settings["how"] != "greedy" and settings["metric"]:
        raise ConfigError("metric: applies to how=greedy only")
    weights = [_number("weights", item) for item in parse_list(settings["weights"])] or None
    density, scale = (_number(key, settings[key]) for key in ("density", "scale"))
    if not 0 < density < 1:
        raise ConfigError(f"density: must be between 0 and 1, got {settings['density']}")
    if scale <= 0:
        raise ConfigError(f"scale: must be above 0, got {settings['scale']}")
    merge = Merge(how, weights, settings["base"] or None, density, scale)  # type: ignore[arg-type]  # among the choices
    try:
        merge.check(count)
    except ValueError as error:
        key = "runs" if count < 2 or "goes between" in str(error) else ""
        raise ConfigError(f"{key}: {error}" if key else str(error)) from error
    return merge


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{key}: must be a number, not '{truncate(text)}'") from error
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{key}: must be a number of 0 or more, got {truncate(text)}")
    return value


def _check_same(opened: Mapping[str, Predictor]) -> None:
    """Raise ConfigError unless all runs have tensors of the same names and shapes, and the same meaning of outputs."""
    (first, expected), *others = opened.items()
    for name, predictor in others:
        keys = expected.processor_spec.keys() | predictor.processor_spec.keys()
        differing = [k for k in sorted(keys) if expected.processor_spec.get(k) != predictor.processor_spec.get(k)]
        if differing:
            raise ConfigError(
                f"runs: {first} and {name} were trained on other data: they differ in {', '.join(differing)}; merge "
                "runs of the same data"
            )
    try:
        check_alike({name: one.model.state_dict() for name, one in opened.items()})
    except ValueError as error:
        raise ConfigError(f"runs: {error}") from error


def _greedy(opened: Mapping[str, Predictor], metric: str, data_dir: str | None) -> list[str]:
    """Return the runs of a greedy soup (Wortsman et al. 2022): best first, each kept unless it makes the average worse.

    Prints a line for each run.
    """
    first = next(iter(opened.values()))
    check_eval_targets(first.config, first.trust)
    loader = open_run_data(first, data_dir, _BATCH_SIZE)
    if "val" not in loader.splits:
        raise ConfigError("how: greedy chooses by validation data, which these runs lack; use how=average")
    task = open_run_task(first)
    weights = {name: {key: t.clone() for key, t in one.model.state_dict().items()} for name, one in opened.items()}
    metric = (metric or str(first.config["monitor"])).removeprefix("val/")
    specs = declared_specs(task)
    if metric not in specs:
        raise ConfigError(f"metric: there is no '{metric}'; {suggest(metric, list(specs))}")
    sign = -1 if specs[metric].direction == "min" else 1
    alone = {name: _measure(first, tensors, task, loader, metric) for name, tensors in weights.items()}
    ranked = sorted(alone, key=lambda name: sign * alone[name], reverse=True)
    kept, best = ranked[:1], alone[ranked[0]]
    print_line(f"kept: {ranked[0]}: val/{metric} {best:.6g}")
    for name in ranked[1:]:
        tried = [weights[one] for one in (*kept, name)]
        value = _measure(first, average(tried, [1 / len(tried)] * len(tried)), task, loader, metric)
        verdict = "kept" if sign * value >= sign * best else "left out"
        print_line(f"{verdict}: {name}: val/{metric} {alone[name]:.6g} alone, {value:.6g} with it, {best:.6g} without")
        if verdict == "kept":
            kept, best = [*kept, name], value
    return kept


def _measure(predictor: Predictor, weights: Mapping[str, Any], task: Task, loader: Loader, metric: str) -> float:
    predictor.model.load_state_dict(weights)
    value = evaluate(predictor.model, task, loader.eval_batches("val"), predictor.device)[metric]
    return float(value)
