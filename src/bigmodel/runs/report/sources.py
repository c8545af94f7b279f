"""Where a page's predictions come from: a run's checkpoint and data, or a run that has just ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.config.instantiate import instantiate
from bigmodel.errors import DataError
from bigmodel.inference.predictor import Predictor, check_eval_targets, open_run
from bigmodel.inference.processors.spoken import SpeechSynthesisProcessor
from bigmodel.inference.run_data import open_run_data, open_run_task
from bigmodel.runs.best_checkpoint import load_best_checkpoint
from bigmodel.runs.report.classified import ClassifierInspector
from bigmodel.runs.report.forecasts import ForecastInspector
from bigmodel.runs.report.hidden_tokens import HiddenTokenInspector
from bigmodel.runs.report.measured import LabelInspector, NumberInspector
from bigmodel.runs.report.passages import PassageInspector
from bigmodel.runs.report.predictions import Inspector, Subject, inspect
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.runs.report.transcripts import TranscriptInspector, TranslationInspector
from bigmodel.runs.report.waves import WaveInspector
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.ctc import CTC
from bigmodel.tasks.forecasting import Forecasting
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.masked_language_modelling import MaskedPrediction
from bigmodel.tasks.multi_label import MultiLabel
from bigmodel.tasks.regression import Regression
from bigmodel.tasks.translation import Translation
from bigmodel.training.error_translation import translate_oom

if TYPE_CHECKING:
    from bigmodel.training.build import TrainingRun

_MAX_BATCH = 64
_MAX_SAMPLES = 5000  # that a command looks at
_BUDGET_S = 30.0  # of a command


def _token_inspector(subject: Subject) -> Inspector:
    speaks = isinstance(subject.processor, SpeechSynthesisProcessor)
    return WaveInspector(subject) if speaks else PassageInspector(subject)


_INSPECTORS: Sequence[tuple[type, Callable[[Subject], Inspector]]] = (  # the first that fits
    (Classification, ClassifierInspector),
    (CTC, TranscriptInspector),
    (Forecasting, ForecastInspector),  # before its base
    (Regression, NumberInspector),
    (MultiLabel, LabelInspector),
    (LanguageModelling, _token_inspector),
    (MaskedPrediction, HiddenTokenInspector),
    (Translation, TranslationInspector),
)


def inspector_of(task: object) -> Callable[[Subject], Inspector] | None:
    """Return what shows a task's predictions; None for a task that has nothing to show."""
    return next((make for kind, make in _INSPECTORS if isinstance(task, kind)), None)


def held_out_split(splits: Mapping[str, int]) -> str | None:
    """Return the split whose samples are shown: test, else val; None where nothing is held out."""
    return next((name for name in ("test", "val") if splits.get(name)), None)


def from_checkpoint(
    run: Path, device: str, data_dir: str | None, trust: Sequence[str], writer: SvgWriter, has_counts: bool
) -> str:
    """Return the sections that need predictions, of the best checkpoint and the run's data.

    Raises:
        BigmodelError: there is no checkpoint that verifies, or no data.
    """
    predictor: Predictor = open_run(run, device, trust)
    check_eval_targets(predictor.config, predictor.trust)
    task = open_run_task(predictor)
    make = inspector_of(task)
    if make is None:
        return ""
    loader = open_run_data(predictor, data_dir, _batch_size(predictor.config))
    split = held_out_split(loader.splits)
    if split is None:
        raise DataError("the run has neither test nor validation data")
    subject = Subject(
        predictor.model,
        task,
        predictor.device,
        loader,
        split,
        predictor.processor,
        predictor.processor_spec,
        predictor.step,
        has_counts,
        _BUDGET_S,
    )
    with translate_oom("while predicting for the report; set predictions=false, or device=cpu"):
        return inspect(subject, make, writer, _MAX_SAMPLES)


def _batch_size(config: Mapping[str, Any]) -> int:
    """Return a batch that fits the memory, because the run has trained on batches of this size."""
    size, parts, pieces = config.get("batch_size"), config.get("accumulate"), config.get("pieces")
    if not isinstance(size, int) or not isinstance(parts, int):
        return _MAX_BATCH
    parts *= pieces if isinstance(pieces, int) else 1
    return max(1, min(_MAX_BATCH, size // max(1, parts)))


def from_built(
    directory: Path,
    built: TrainingRun,
    step: int,
    writer: SvgWriter,
    has_counts: bool,
    max_samples: float,
    budget_s: float,
) -> str:
    """Return the same sections of a run that has just ended, from the data and the weights (of `step`) it holds.

    A run that was tested holds its best weights. Any other one loads them, unless they are its last ones.
    """
    state, split = built.state, held_out_split(built.loader.splits)
    make = inspector_of(state.task)
    if make is None or split is None:
        return ""
    spec = dict(built.dataset.processor_spec())
    node = {"_target_" if key == "kind" else key: value for key, value in spec.items()}
    if state.best and split == "val" and state.best["step"] != state.step:
        found, _ = load_best_checkpoint(directory, str(directory))
        state.result_module.load_state_dict(found.weights)
        step = int(found.state["step"])
    subject = Subject(
        state.result_module,
        state.task,
        built.device,
        built.loader,
        split,
        instantiate("kind", node, built.config.trust),
        spec,
        step,
        has_counts,
        budget_s,
    )
    return inspect(subject, make, writer, max_samples)
