"""Values that follow from others or from the data where nobody set them, and lines that say so."""

from __future__ import annotations

from bigmodel.config import Config
from bigmodel.errors import ConfigError
from bigmodel.interfaces import Counting, Data, Dataset
from bigmodel.job import warmed_up
from bigmodel.losses import balanced
from bigmodel.tasks.number_defaults import number_defaults
from bigmodel.words import clip

_WEIGHED = "bigmodel.losses.CrossEntropy"
_SPAN = 0.5  # of a run's updates
DEFAULT_BATCH_SIZE = 64


def with_defaults(config: Config) -> tuple[Config, list[str]]:
    """The config with the defaults that depend on others, and lines about them."""
    changed, lines = number_defaults(config.tree)
    if config.tree["batch_size"] is None:
        changed["batch_size"] = DEFAULT_BATCH_SIZE
    return (config.with_facts(changed) if changed else config), lines


def slow_average(decay: float | None, steps: int) -> list[str]:
    """A warning where an average spans so many updates that it is short of the run's end."""
    if not decay or not steps or 1 / (1 - decay) < _SPAN * steps:
        return []
    fitting, reached = 1 - float(f"{1 / max(2.0, steps / 10):.1g}"), warmed_up(decay, steps - 1)
    if fitting >= decay:  # no shorter average would help so short a run
        return []
    return [
        f"ema: {decay:g} averages over {1 / (1 - decay):,.0f} updates, and this run has {steps:,}: its warm-up ends at "
        f"{reached:.4g}; ema={fitting:g} spans a tenth of the run"
    ]


def with_outputs(config: Config, dataset: Dataset) -> tuple[Config, list[str]]:
    """For data without classes: the model has as many outputs as there are numbers or labels to tell."""
    outputs, key = dataset.facts.get("outputs"), "model.num_classes"
    if outputs is None or dataset.facts.get("num_classes") is not None:
        return config, []
    if config.tree["model"].get("num_classes", 0) is not None or config.reference(key) != "dataset.num_classes":
        return config, []
    return config.with_facts({key: outputs}), [f"{key}={outputs}: the data has no classes, and so many outputs to tell"]


def with_weights(config: Config, dataset: Dataset, data: Data) -> tuple[Config, list[str]]:
    """The weights of the classes in place of `loss.weight=balanced`, and a line that says so."""
    loss = config.tree.get("loss") or {}
    given, number = loss.get("weight"), dataset.facts.get("num_classes")
    if isinstance(given, (list, tuple)) and loss.get("_target_") == _WEIGHED and number not in (None, len(given)):
        names = clip(", ".join(map(str, dataset.about().get("classes", ()))), 200)
        there = f"the data has {number} classes{f' ({names})' if names else ''}"
        raise ConfigError(
            f"loss.weight: got {len(given)} weights, {there}; set loss.weight=balanced or {number} numbers"
        )
    if given != "balanced":
        return config, []
    counts_C = data.class_counts() if isinstance(data, Counting) else None
    if counts_C is None:
        raise ConfigError("loss.weight: balanced is for data with one class a sample; set loss.weight=null")
    missing = max(0, int(dataset.facts.get("num_classes") or 0) - len(counts_C))
    weights = [float(f"{weight:.6g}") for weight in balanced(counts_C)] + [0.0] * missing
    return config.with_facts({"loss.weight": weights}), [f"loss.weight=balanced: {clip(weights, 200)}"]
