"""Today's names of targets and keys that were renamed since a config, a checkpoint or a user's YAML was written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

MODULES: Mapping[str, str] = {
    "bigmodel.augment": "bigmodel.datasets.images.augment",
    "bigmodel.datasets.answers": "bigmodel.datasets.tables.targets",
    "bigmodel.datasets.audio_folder": "bigmodel.datasets.audio.audio_folder",
    "bigmodel.datasets.catalogues": "bigmodel.datasets.files.gettext",
    "bigmodel.datasets.cifar": "bigmodel.datasets.images.cifar",
    "bigmodel.datasets.class_counts": "bigmodel.datasets.files.class_counts",
    "bigmodel.datasets.class_folders": "bigmodel.datasets.files.class_folders",
    "bigmodel.datasets.coded_sounds": "bigmodel.datasets.audio.coded_sounds",
    "bigmodel.datasets.columns": "bigmodel.datasets.files.columns",
    "bigmodel.datasets.csv_images": "bigmodel.datasets.images.csv_images",
    "bigmodel.datasets.delimited": "bigmodel.datasets.files.delimited",
    "bigmodel.datasets.digits": "bigmodel.datasets.images.digits",
    "bigmodel.datasets.encoding": "bigmodel.datasets.tables.encoding",
    "bigmodel.datasets.files": "bigmodel.datasets.files.published",
    "bigmodel.datasets.folder_walk": "bigmodel.datasets.files.folder_walk",
    "bigmodel.datasets.image_folder": "bigmodel.datasets.images.image_folder",
    "bigmodel.datasets.images": "bigmodel.datasets.images.dataset",
    "bigmodel.datasets.labelled_rows": "bigmodel.datasets.text.labelled_rows",
    "bigmodel.datasets.labelled_text": "bigmodel.datasets.text.labelled_text",
    "bigmodel.datasets.locations": "bigmodel.datasets.files.locations",
    "bigmodel.datasets.medmnist": "bigmodel.datasets.images.medmnist",
    "bigmodel.datasets.mel": "bigmodel.datasets.audio.mel",
    "bigmodel.datasets.mnist": "bigmodel.datasets.images.mnist",
    "bigmodel.datasets.molecules": "bigmodel.datasets.text.molecules",
    "bigmodel.datasets.moments": "bigmodel.datasets.files.timestamps",
    "bigmodel.datasets.mu_law": "bigmodel.datasets.audio.mu_law",
    "bigmodel.datasets.parallel_text": "bigmodel.datasets.text.parallel_text",
    "bigmodel.datasets.picture_check": "bigmodel.datasets.images.picture_check",
    "bigmodel.datasets.picture_targets": "bigmodel.datasets.images.picture_targets",
    "bigmodel.datasets.pipeline": "bigmodel.datasets.images.loader",
    "bigmodel.datasets.pixels": "bigmodel.datasets.images.pixels",
    "bigmodel.datasets.roles": "bigmodel.datasets.tables.roles",
    "bigmodel.datasets.rows": "bigmodel.datasets.files.table_files",
    "bigmodel.datasets.scale": "bigmodel.datasets.tables.standardizer",
    "bigmodel.datasets.series": "bigmodel.datasets.tables.series",
    "bigmodel.datasets.series_steps": "bigmodel.datasets.tables.series_steps",
    "bigmodel.datasets.smiles": "bigmodel.datasets.text.smiles",
    "bigmodel.datasets.sound_classes": "bigmodel.datasets.audio.sound_classes",
    "bigmodel.datasets.sound_files": "bigmodel.datasets.audio.sound_files",
    "bigmodel.datasets.spec_augment": "bigmodel.datasets.audio.spec_augment",
    "bigmodel.datasets.split_names": "bigmodel.datasets.files.split_names",
    "bigmodel.datasets.splits": "bigmodel.datasets.loading.splits",
    "bigmodel.datasets.spoken_digit_waves": "bigmodel.datasets.audio.spoken_digit_waves",
    "bigmodel.datasets.spoken_digits": "bigmodel.datasets.audio.spoken_digits",
    "bigmodel.datasets.structured": "bigmodel.datasets.files.structured",
    "bigmodel.datasets.table": "bigmodel.datasets.tables.table",
    "bigmodel.datasets.table_bytes": "bigmodel.datasets.files.table_bytes",
    "bigmodel.datasets.table_checks": "bigmodel.datasets.tables.table_checks",
    "bigmodel.datasets.table_format": "bigmodel.datasets.files.table_format",
    "bigmodel.datasets.table_header": "bigmodel.datasets.files.table_header",
    "bigmodel.datasets.tensors": "bigmodel.datasets.loading.tensors",
    "bigmodel.datasets.text": "bigmodel.datasets.text.continuous",
    "bigmodel.datasets.text_archives": "bigmodel.datasets.files.text_archives",
    "bigmodel.datasets.text_encoding": "bigmodel.datasets.files.text_encoding",
    "bigmodel.datasets.text_sources": "bigmodel.datasets.text.text_sources",
    "bigmodel.datasets.token_files": "bigmodel.datasets.text.token_files",
    "bigmodel.datasets.tokenizers": "bigmodel.datasets.text.tokenizers",
    "bigmodel.datasets.wav": "bigmodel.datasets.audio.wav",
    "bigmodel.datasets.windows": "bigmodel.datasets.loading.windows",
    "bigmodel.datasets.word_tokenizer": "bigmodel.datasets.text.word_tokenizer",
    "bigmodel.datasets.yesno": "bigmodel.datasets.audio.yesno",
    "bigmodel.device": "bigmodel.runtime.device",
    "bigmodel.initial": "bigmodel.training.init_weights",
    "bigmodel.losses": "bigmodel.tasks.losses",
    "bigmodel.models.adapted_weights": "bigmodel.models.weights.adapted_weights",
    "bigmodel.models.foreign_weights": "bigmodel.models.weights.foreign_weights",
    "bigmodel.models.gpt2_names": "bigmodel.models.weights.gpt2_names",
    "bigmodel.models.lora": "bigmodel.models.weights.lora",
    "bigmodel.models.unpickle": "bigmodel.models.weights.unpickle",
    "bigmodel.predicting.columns": "bigmodel.inference.processors.columns",
    "bigmodel.predicting.continuation": "bigmodel.inference.processors.continuation",
    "bigmodel.predicting.files": "bigmodel.inference.processors.files",
    "bigmodel.predicting.generation": "bigmodel.models.decoding.generation",
    "bigmodel.predicting.hidden_tokens": "bigmodel.inference.processors.hidden_tokens",
    "bigmodel.predicting.image_values": "bigmodel.inference.processors.image_values",
    "bigmodel.predicting.images": "bigmodel.inference.processors.images",
    "bigmodel.predicting.inputs": "bigmodel.inference.inputs",
    "bigmodel.predicting.prediction": "bigmodel.inference.prediction",
    "bigmodel.predicting.ranking": "bigmodel.inference.processors.ranking",
    "bigmodel.predicting.sampling": "bigmodel.models.decoding.sampling",
    "bigmodel.predicting.sentences": "bigmodel.inference.processors.sentences",
    "bigmodel.predicting.series": "bigmodel.inference.processors.series",
    "bigmodel.predicting.sounds": "bigmodel.inference.processors.sounds",
    "bigmodel.predicting.speech": "bigmodel.inference.processors.speech",
    "bigmodel.predicting.spoken": "bigmodel.inference.processors.spoken",
    "bigmodel.predicting.steps": "bigmodel.inference.processors.steps",
    "bigmodel.predicting.tables": "bigmodel.inference.processors.tables",
    "bigmodel.predicting.text_values": "bigmodel.inference.processors.text_values",
    "bigmodel.predicting.texts": "bigmodel.inference.processors.texts",
    "bigmodel.predicting.translating": "bigmodel.models.decoding.seq2seq_search",
    "bigmodel.predicting.translations": "bigmodel.inference.processors.translations",
    "bigmodel.predicting.values": "bigmodel.inference.processors.values",
    "bigmodel.predicting.waves": "bigmodel.inference.processors.waves",
    "bigmodel.schedules": "bigmodel.optim.schedules",
    "bigmodel.tasks.auc": "bigmodel.tasks.metrics.auc",
    "bigmodel.tasks.chrf": "bigmodel.tasks.metrics.chrf",
}

NAMES: Mapping[str, str] = {  # of classes and functions within those modules, by their old full name
    "bigmodel.augment.Augment": "ImageAugment",
    "bigmodel.datasets.molecules.strings": "smiles_strings",
    "bigmodel.datasets.parallel_text.catalogues": "gettext_pairs",
    "bigmodel.datasets.spoken_digit_waves.Windows": "RandomWaveCrop",
    "bigmodel.initial.initial": "init_weights",
    "bigmodel.predicting.continuation.Continuation": "TextGenerationProcessor",
    "bigmodel.predicting.hidden_tokens.HiddenTokens": "MaskedTokenProcessor",
    "bigmodel.predicting.image_values.ImageLabels": "ImageMultiLabelProcessor",
    "bigmodel.predicting.image_values.ImageNumber": "ImageRegressionProcessor",
    "bigmodel.predicting.images.Images": "ImageClassificationProcessor",
    "bigmodel.predicting.sentences.Sentences": "TextClassificationProcessor",
    "bigmodel.predicting.series.Series": "ForecastProcessor",
    "bigmodel.predicting.sounds.Sounds": "AudioClassificationProcessor",
    "bigmodel.predicting.speech.Speech": "SpeechRecognitionProcessor",
    "bigmodel.predicting.spoken.Spoken": "SpeechSynthesisProcessor",
    "bigmodel.predicting.tables.Tables": "TableProcessor",
    "bigmodel.predicting.text_values.TextLabels": "TextMultiLabelProcessor",
    "bigmodel.predicting.text_values.TextNumber": "TextRegressionProcessor",
    "bigmodel.predicting.texts.OfTexts": "TextInputProcessor",
    "bigmodel.predicting.translations.Translations": "TranslationProcessor",
    "bigmodel.schedules.Step": "MultiStep",
}


class Keys(NamedTuple):
    """Today's keys of a target by their old names, and the target's place in a config."""

    place: str
    names: Mapping[str, str]


KEYS: Mapping[str, Keys] = {
    "bigmodel.tasks.masked_language_modelling.MaskedLanguageModelling": Keys("task", {"share": "mask_probability"}),
    "bigmodel.tasks.permuted_language_modelling.PermutedLanguageModelling": Keys("task", {"share": "predict_fraction"}),
    "bigmodel.datasets.tables.table.table": Keys(
        "dataset",
        {
            "target_is": "target_type",
            "numbers": "numeric_columns",
            "categories": "categorical_columns",
            "ignored": "ignored_columns",
            "num_numbers": "num_numeric",
        },
    ),
    "bigmodel.datasets.text.molecules.molecules": Keys("dataset", {"target_is": "target_type"}),
    "bigmodel.datasets.images.csv_images.csv_images": Keys("dataset", {"target_is": "target_type"}),
    "bigmodel.models.deepspeech.DeepSpeech": Keys("model", {"both_ways": "bidirectional"}),
    "bigmodel.models.dlinear.DLinear": Keys("model", {"from_last": "subtract_last"}),
    "bigmodel.models.gpt.GPT": Keys("model", {"tied": "tie_embeddings"}),
    "bigmodel.models.tabular_mlp.TabularMLP": Keys("model", {"num_numbers": "num_numeric"}),
    "bigmodel.optim.muon_sgd.muon_sgd": Keys("optim", {"early": "early_params"}),
    "bigmodel.training.init_weights.init_weights": Keys("init", {"strip": "strip_prefix"}),
    "bigmodel.models.weights.lora.LoRA": Keys("init.lora", {"train": "also_train"}),
}
VALUES: Mapping[tuple[str, str], Mapping[Any, Any]] = {  # by target and today's key
    ("bigmodel.datasets.text.labelled_text.labelled_text", "predicts"): {"hidden_token": "masked_token"},
}
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def current_target(target: str) -> str:
    """Return today's name of a `_target_`; other names are returned unchanged."""
    module, dot, name = target.rpartition(".")
    return f"{MODULES.get(module, module)}{dot}{NAMES.get(target, name)}"


def current_key(target: Any, key: str) -> str:
    """Return today's name of a key of a node with this `_target_`; other keys are returned unchanged."""
    keys = KEYS.get(current_target(str(target)))
    return key if keys is None else keys.names.get(key, key)


def current_path(tree: Any, path: str) -> str:
    """Return today's name of a dotted key of a tree, plain or of OmegaConf; other keys are returned unchanged."""
    *places, name = path.split(".")
    if not any(name in row.names for row in KEYS.values()):
        return path
    node = tree
    for place in places:
        node = node.get(place) if hasattr(node, "get") else None
    return ".".join([*places, current_key(node.get("_target_"), name)]) if hasattr(node, "get") else path


def old_keys(tree: Any, keys: Iterable[str]) -> list[str]:
    """Return a line for each typed key that is an old name: it is not taken for the new one."""
    return [f"{key}: no such setting; it is {new} now" for key in keys if (new := current_path(tree, key)) != key]


def with_current_names(tree: Any) -> Any:
    """Return a copy of a plain tree in which targets, a checkpoint's `kind`, keys and values have today's names."""
    return rename(tree)[0]


def rename(tree: Any) -> tuple[Any, list[str]]:
    """Return a copy of a plain tree under today's names, and a line for each key or value that had an old one.

    References such as `${dataset.num_numbers}` follow the keys.
    """
    keys: dict[str, str] = {}
    lines: list[str] = []
    renamed = _rename("", tree, keys, lines)
    lines = [*(f"{old} is now {new}" for old, new in keys.items()), *lines]
    return (_follow(renamed, keys) if keys else renamed), lines


def _rename(path: str, node: Any, keys: dict[str, str], lines: list[str]) -> Any:
    if isinstance(node, list):
        return [_rename(path, item, keys, lines) for item in node]
    if not isinstance(node, Mapping):
        return node
    target = current_target(str(node.get("_target_")))
    names = KEYS[target].names if target in KEYS else {}
    prefix = f"{path}." if path else ""
    found: dict[Any, Any] = {}
    for key, value in node.items():
        new = names.get(key, key)
        if new != key:
            keys[f"{prefix}{key}"] = f"{prefix}{new}"
            if new in node:  # laid over the old one by a file or by the command line
                continue
        if key in ("_target_", "kind") and isinstance(value, str) and value.startswith("bigmodel."):
            value = current_target(value)
        elif isinstance(value, str) and value in (values := VALUES.get((target, new), {})):
            lines.append(f"{prefix}{new}: {value} is now {values[value]}")
            value = values[value]
        found[new] = _rename(f"{prefix}{new}", value, keys, lines)
    if "_target_" in node:  # of what `with_current_keys` has added, this target has its own names only
        added = {new for row in KEYS.values() for old, new in row.names.items() if old in node}
        for new in added - {*names.values()}:
            found.pop(new, None)
    return found


def _follow(node: Any, keys: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {key: _follow(value, keys) for key, value in node.items()}
    if isinstance(node, list):
        return [_follow(item, keys) for item in node]
    return _REFERENCE.sub(lambda found: f"${{{keys.get(found[1], found[1])}}}", node) if isinstance(node, str) else node


def with_current_keys(tree: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the tree of a user's YAML file at its place in the config with today's keys beside old ones.

    A file may lay single keys over a choice that is made elsewhere, so the target that would tell their new names is
    not known until all files and overrides are laid over each other, by their keys. `rename` then keeps one.
    """
    target = tree.get("_target_")
    found = dict(tree)
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found[key] = with_current_keys(value, f"{place}.{key}" if place else str(key))
        names = {current_key(target, key)} if target is not None else {*_candidates(place, key)}
        found |= {name: found[key] for name in names if name not in tree}
    return found


def _candidates(place: str, key: str) -> Iterator[str]:
    return (keys.names[key] for keys in KEYS.values() if keys.place == place and key in keys.names)
