"""Today's names of `_target_`s that have moved since a config or a checkpoint was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def current_target(target: str) -> str:
    """Return today's name of a `_target_`; other names are returned unchanged."""
    module, dot, name = target.rpartition(".")
    return f"{MODULES.get(module, module)}{dot}{NAMES.get(target, name)}"


def with_current_targets(node: Any) -> Any:
    """Return a copy of a plain tree in which each `_target_`, and a checkpoint's `kind`, has today's name."""
    if isinstance(node, Mapping):
        return {
            key: current_target(value)
            if key in ("_target_", "kind") and isinstance(value, str) and value.startswith("bigmodel.")
            else with_current_targets(value)
            for key, value in node.items()
        }
    return [with_current_targets(item) for item in node] if isinstance(node, list) else node
