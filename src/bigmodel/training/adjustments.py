"""Values that follow from others or from the data where nobody set them, and lines that say so."""

from __future__ import annotations

from bigmodel.config.config import Config
from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.interfaces import CountsClasses, Dataset, Loader
from bigmodel.tasks.losses import balanced
from bigmodel.tasks.number_defaults import number_defaults
from bigmodel.training.ema import warmed_up

_WEIGHED = "bigmodel.tasks.losses.CrossEntropy"
_SPAN = 0.5  # of a run's updates
DEFAULT_BATCH_SIZE = 64


def fill_defaults(config: Config) -> tuple[Config, list[str]]:
    """The config with the defaults that depend on others, and lines about them."""
    changed, lines = number_defaults(config.values)
    if config.values["batch_size"] is None:
        changed["batch_size"] = DEFAULT_BATCH_SIZE
    return (config.with_values(changed) if changed else config), lines


def warn_slow_ema(decay: float | None, steps: int) -> list[str]:
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


def set_num_outputs(config: Config, dataset: Dataset) -> tuple[Config, list[str]]:
    """For data without classes: the model has as many outputs as there are numbers or labels to tell."""
    outputs, key = dataset.properties.get("outputs"), "model.num_classes"
    if outputs is None or dataset.properties.get("num_classes") is not None:
        return config, []
    if (
        config.values["model"].get("num_classes", 0) is not None
        or config.interpolated_from(key) != "dataset.num_classes"
    ):
        return config, []
    return config.with_values({key: outputs}), [
        f"{key}={outputs}: the data has no classes, and so many outputs to tell"
    ]


def set_class_weights(config: Config, dataset: Dataset, data: Loader) -> tuple[Config, list[str]]:
    """The weights of the classes in place of `loss.weight=balanced`, and a line that says so."""
    loss = config.values.get("loss") or {}
    given, number = loss.get("weight"), dataset.properties.get("num_classes")
    if isinstance(given, (list, tuple)) and loss.get("_target_") == _WEIGHED and number not in (None, len(given)):
        names = truncate(", ".join(map(str, dataset.processor_spec().get("classes", ()))), 200)
        there = f"the data has {number} classes{f' ({names})' if names else ''}"
        raise ConfigError(
            f"loss.weight: got {len(given)} weights, {there}; set loss.weight=balanced or {number} numbers"
        )
    if given != "balanced":
        return config, []
    counts_C = data.class_counts() if isinstance(data, CountsClasses) else None
    if counts_C is None:
        raise ConfigError("loss.weight: balanced is for data with one class a sample; set loss.weight=null")
    missing = max(0, int(dataset.properties.get("num_classes") or 0) - len(counts_C))
    weights = [float(f"{weight:.6g}") for weight in balanced(counts_C)] + [0.0] * missing
    return config.with_values({"loss.weight": weights}), [f"loss.weight=balanced: {truncate(weights, 200)}"]
