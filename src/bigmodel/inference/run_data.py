"""Open the data that a run was trained on, and its task, for its checkpoint's model."""

from __future__ import annotations

import json
import math
import os

from bigmodel.config.instantiate import instantiate
from bigmodel.config.old_methods import check_method_names
from bigmodel.datasets.files.locations import PATH_KEYS
from bigmodel.errors import DataError, StorageError
from bigmodel.formatting import first_line
from bigmodel.inference.predictor import Predictor, build_model, damaged_state
from bigmodel.interfaces import Dataset, Loader, LoaderOptions, Task
from bigmodel.models.weights.reference import ComparesWithReference, add_reference, reference_weights
from bigmodel.runs import checkpoint
from bigmodel.runtime.offline import offline


def open_run_task(predictor: Predictor) -> Task:
    """Build the run's task, whose nodes `check_eval_targets` has checked. Where it compares the model with a reference,
    the predictor's model gets that of the checkpoint.

    Raises:
        StorageError: the checkpoint is damaged.
    """
    with offline():
        task: Task = instantiate("task", predictor.config["task"], predictor.trust)
    if isinstance(task, ComparesWithReference):
        reference = build_model(predictor.config, predictor.trust)
        try:
            reference.load_state_dict(reference_weights(checkpoint.load(predictor.path).weights))
        except RuntimeError as error:
            raise StorageError(damaged_state(predictor.path, first_line(error))) from error
        add_reference(predictor.model, reference.to(predictor.device.torch_device))
    return task


def open_dataset(predictor: Predictor, data_dir: str | None) -> Dataset:
    """Open the run's dataset where it lay when the run was trained, or in `data_dir`.

    Raises:
        ConfigError: the dataset of the checkpoint's config refuses its settings.
        DataError: the data is missing or damaged, or is not what the run was trained on.
    """
    node = dict(predictor.config["dataset"])
    path_key = next((key for key in ("data_dir", *PATH_KEYS) if key in node), None)  # None: the data is in the package
    if data_dir is not None and path_key is not None:
        before = f"{node[path_key]}/"  # what lay below it, as a vocabulary, lies below the new one
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(before):
                node[key] = f"{data_dir}/{value.removeprefix(before)}"
        node[path_key] = data_dir
    with offline("; get the run's data and set data_dir"):
        dataset: Dataset = instantiate("dataset", node, predictor.trust)
    current = json.loads(json.dumps(dict(dataset.processor_spec())))  # as state.json would hold it
    for key, value in predictor.processor_spec.items():
        if current.get(key, value) != value:
            raise DataError(
                f"dataset: {key} differs from the run's training data; set data_dir to the data it was trained on"
            )
    return dataset


def open_run_data(predictor: Predictor, data_dir: str | None, batch_size: int) -> Loader:
    """Open the run's data and its loader; see `open_dataset`.

    Raises:
        ConfigError: the dataset of the checkpoint's config refuses its settings.
        DataError: the data is missing or damaged, or is not what the run was trained on.
        StorageError: the checkpoint's config is damaged.
    """
    return open_loader(predictor, open_dataset(predictor, data_dir), batch_size)


def open_loader(predictor: Predictor, dataset: Dataset, batch_size: int) -> Loader:
    """Return the dataset's loader, as the run's config has it.

    Raises:
        DataError: the data is missing or damaged.
        StorageError: the checkpoint's config is damaged.
    """
    stored = predictor.config
    try:
        seed = int(stored["seed"])
        resident_bytes = float(stored["resident_gb"]) * 1e9
        workers = int(stored["workers"])
        if seed < 0 or not 0 <= resident_bytes < math.inf or workers < 0:
            raise ValueError("seed, workers or resident_gb out of range")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StorageError(damaged_state(predictor.path, repr(error))) from error
    options = LoaderOptions(
        predictor.device.torch_device,
        batch_size,
        seed,
        resident_bytes,
        workers=min(workers, os.cpu_count() or 1),  # the run's machine may have had more cores
    )
    loader = dataset.loader(options)
    check_method_names("loader", loader)
    return loader
