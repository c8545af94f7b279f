"""Take the keys of a model, and of its vocabulary, from open weights that `init.from` names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bigmodel.config.config import Config
from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.models.weights.hub_config import GPT
from bigmodel.models.weights.open_weights import OpenWeights, is_open_weights, read_open_weights

# no tensor has these in its shape
_FREE = ("context", "window", "full_layers", "rope_theta", "rope_scaling", "norm_eps")


def with_weights_keys(config: Config, typed: Collection[str]) -> Config:
    """Return the config with the keys of the weights; what was `typed` stays, or is refused where no tensor would fit.

    Raises:
        ConfigError: the weights cannot be read, are of another model, or contradict a key that was typed.
    """
    source = (config.values.get("init") or {}).get("from")
    if not isinstance(source, str) or not is_open_weights(source):
        return config
    try:
        found = read_open_weights(source)
    except ValueError as error:
        raise ConfigError(f"init.from: {error}") from error
    model = config.values["model"]
    if model.get("_target_") != found.target:
        name = {"GPT": "gpt", "BertClassifier": "bert"}[found.target.rpartition(".")[2]]
        raise ConfigError(f"init.from: {source} holds the weights of another model; set model={name}")
    wrong = _too_long(config, found, typed) + [
        f"model.{key}: got {_show(model[key])}, but {source} has {_show(value)}; remove the override"
        for key, value in found.keys.items()
        if f"model.{key}" in typed and key not in _FREE and model.get(key) != value
    ]
    if wrong:
        raise ConfigError(*wrong)
    changes = {f"model.{key}": value for key, value in found.keys.items() if f"model.{key}" not in typed}
    shown = " ".join(f"{key}={_show(value)}" for key, value in changes.items() if value is not None)
    vocabulary = _vocabulary(config, found, typed)
    if vocabulary:
        changes |= vocabulary
        del changes["model.vocab_size"]  # follows the dataset's
    kept = [f"{key} stays {_show(model[key])}" for key in found.keys if f"model.{key}" in typed]
    return config.with_values(changes).with_notes([f"init.from={source}: {'; '.join([shown, *kept])}"])


def _too_long(config: Config, found: OpenWeights, typed: Collection[str]) -> list[str]:
    """Return a line where the samples have more tokens than the model reads."""
    length, most = config.values["dataset"].get("context"), found.keys["context"]
    if not isinstance(length, int) or length <= most or "model.context" in typed:
        return []
    return [f"dataset.context: got {length}, but {found.path} reads at most {most} tokens; set dataset.context={most}"]


def _vocabulary(config: Config, found: OpenWeights, typed: Collection[str]) -> dict[str, Any]:
    """Return the dataset's keys by which it reads text in the tokens of the weights; none where it has no such keys."""
    dataset = config.values["dataset"]
    keys = {
        "dataset.vocabulary": str(found.path),
        "dataset.vocab_size": found.keys["vocab_size"],
    }
    if "tokenizer" in dataset:  # of several; conversations are always written in the model's
        keys["dataset.tokenizer"] = "bpe" if found.target == GPT else "published"
    if any(key in typed or key.partition(".")[2] not in dataset for key in keys):
        return {}
    return keys


def _show(value: Any) -> str:
    return "null" if value is None else truncate(str(value).lower() if isinstance(value, bool) else str(value))
