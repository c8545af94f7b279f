"""The model card, `README.md` in the hub's form: front matter for machines, tables of facts, the author's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bigmodel.formatting import format_si
from bigmodel.runs.comparison.significance import wilson_interval
from bigmodel.runs.sharing.author import Answers
from bigmodel.runs.sharing.facts import Facts, Measure
from bigmodel.runs.sharing.markdown import code, escape, paragraph, table

LIBRARY = "bigmodel-train"
_MAX_MATRIX, _MAX_CLASSES = 20, 200  # classes that are shown in a table
_PIPELINES = {  # the hub's name of what a processor does
    "ImageClassificationProcessor": "image-classification",
    "ImageMultiLabelProcessor": "image-classification",
    "TextClassificationProcessor": "text-classification",
    "TextMultiLabelProcessor": "text-classification",
    "MaskedTokenProcessor": "fill-mask",
    "TextGenerationProcessor": "text-generation",
    "ConversationProcessor": "text-generation",
    "TranslationProcessor": "translation",
    "AudioClassificationProcessor": "audio-classification",
    "SpeechRecognitionProcessor": "automatic-speech-recognition",
    "SpeechSynthesisProcessor": "text-to-speech",
    "ForecastProcessor": "time-series-forecasting",
}
_OF_A_TABLE = {True: "tabular-classification", False: "tabular-regression"}


@dataclass(frozen=True)
class DataFacts:
    """The names of the model and the data, and what is known of the data; `processor` is the target of what reads it.

    `description` and `source` are of this package's own YAML, all else may be foreign text.
    """

    model: str
    name: str
    description: str
    license: str
    fingerprint: str
    source: str | None
    processor: str


def front_matter(facts: Facts, answers: Answers, data: DataFacts, title: str) -> dict[str, Any]:
    """Return what the hub reads: license, library, tags, metrics, and the results as a model index."""
    pipeline = _pipeline(facts, data)
    metrics = [one.name for one in facts.measures]
    known: dict[str, Any] = {
        "license": answers.license,
        "license_name": answers.license_name if answers.license == "other" else "",
        "license_link": answers.license_link,
        "library_name": LIBRARY,
        "pipeline_tag": pipeline,
        "tags": [LIBRARY, data.model],
        "datasets": [data.name] if data.source or not answers.data_name else [],
        "metrics": metrics,
    }
    results = {
        "task": {"type": pipeline or "other"},
        "dataset": {"name": data.name, "type": data.name, "split": facts.split},
        "metrics": [
            {"type": one.name, "value": one.value, "name": f"{facts.split} {one.name}"} for one in facts.measures
        ],
    }
    index = {"model-index": [{"name": title, "results": [results]}]} if metrics else {}
    return {key: value for key, value in known.items() if value} | index


def _pipeline(facts: Facts, data: DataFacts) -> str:
    name = data.processor.rpartition(".")[2]
    return _OF_A_TABLE[facts.confusion is not None] if name == "TableProcessor" else _PIPELINES.get(name, "")


def model_card(
    facts: Facts, answers: Answers, data: DataFacts, bases: Sequence[str], licenses: Sequence[str], folder: str
) -> str:
    """Return the card.

    `bases` are the names of what the weights began as, `licenses` lines about what the licenses ask, `folder` the name
    of what is shared.
    """
    title = answers.title or f"{data.model} on {data.name}"
    header = yaml.safe_dump(front_matter(facts, answers, data, title), sort_keys=False, allow_unicode=True)
    sections = [
        ("Intended use", paragraph(answers.intended_use)),
        ("Limitations", paragraph(answers.limitations)),
        ("Use", _use(folder)),
        ("Results", _results(facts)),
        ("Classes", _classes(facts)),
        ("Confusion matrix", _matrix(facts)),
        ("Data", _data(facts, answers, data)),
        ("Training", _training(facts, bases)),
        ("License", _license(licenses)),
        ("Contact", paragraph(answers.contact)),
    ]
    parts = [f"---\n{header}---", f"# {escape(title)}", _summary(facts, data)]
    return "\n\n".join([*parts, *(f"## {head}\n\n{text}" for head, text in sections if text)]) + "\n"


def _license(told: Sequence[str]) -> str:
    lines = ["[LICENSES.md](LICENSES.md) has them all."]
    return "\n".join([*lines, *([""] if told else []), *(f"- {escape(line, 400)}" for line in told)])


def _summary(facts: Facts, data: DataFacts) -> str:
    of = f" {data.description}." if data.description else ""
    size = f"{facts.num_parameters:,} parameters"
    return f"A model {code(data.model)} of {size}, trained on {escape(data.name)}.{of}"


def _use(folder: str) -> str:
    name = re.sub(r"[^\w.-]", "_", folder)
    return (
        f"```sh\npip install -r {name}/requirements.txt\nbigmodel-predict run={name} input=...\n"
        f"bigmodel-evaluate run={name} data_dir=...\n```\n\n"
        f'In Python: `bigmodel.load("{name}").predict(...)`. Weights to begin with: `init.from={name}`. '
        "All of these compare every file with the size and the SHA-256 in MANIFEST.json first."
    )


def _results(facts: Facts) -> str:
    if not facts.measures:
        return "The run was not evaluated."
    of = f"{facts.samples:,} samples" if facts.samples else "samples"
    lines = [f"On {of} of the {facts.split} split."]
    with_intervals, with_seeds = (
        any(found) for found in zip(*((m.interval, m.seeds) for m in facts.measures), strict=True)
    )
    head = ["metric", "value", *(["95 % interval"] if with_intervals else [])]
    head += [f"mean of {len(facts.seeds)} seeds", "95 % interval of the mean"] if with_seeds else []
    rows = [_result_row(one, with_intervals, with_seeds) for one in facts.measures]
    lines += ["", table(head, rows)]
    if with_intervals:
        lines += [
            "",
            "Intervals are Wilson's, of a share of so many samples.",
        ]
    if with_seeds:
        lines += [
            "",
            "The weights are those of the first seed. The mean's interval is Student's t over the seeds.",
        ]
    if facts.split == "val":
        lines += ["", "The checkpoint was chosen by this split, so these values are too good."]
    return "\n".join(lines)


def _result_row(one: Measure, with_intervals: bool, with_seeds: bool) -> list[str]:
    unit = f" {escape(one.spec.unit)}" if one.spec.unit else ""
    row = [escape(one.name), f"{one.spec.text(one.value)}{unit}"]
    row += [_interval(one, one.interval)] if with_intervals else []
    if with_seeds:
        mean = one.seeds
        bounds = (mean.low, mean.high) if mean is not None and mean.low is not None and mean.high is not None else None
        row += [one.spec.text(mean.mean) if mean is not None else "", _interval(one, bounds)]
    return row


def _interval(one: Measure, bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else " to ".join(one.spec.text(bound) for bound in bounds)


def _classes(facts: Facts) -> str:
    matrix = facts.confusion
    if matrix is None or len(matrix) > _MAX_CLASSES:
        return ""
    counts = facts.class_counts if facts.class_counts is not None and len(facts.class_counts) == len(matrix) else None
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    rows = []
    for index, row in enumerate(matrix):
        true, hits = sum(row), row[index]
        shares = [hits / true if true else None, hits / predicted[index] if predicted[index] else None]
        low, high = wilson_interval(hits / true, true) if true else (None, None)
        rows.append(
            [
                escape(facts.classes[index]),
                *("" if share is None else f"{share:.1%}" for share in shares),
                "" if low is None else f"{low:.1%} to {high:.1%}",
                f"{true:,}",
                *([f"{counts[index]:,}"] if counts else []),
            ]
        )
    head = ["class", "recall", "precision", "95 % interval of recall", f"{facts.split} samples"]
    return table([*head, *(["training samples"] if counts else [])], rows)


def _matrix(facts: Facts) -> str:
    matrix = facts.confusion
    if matrix is None or len(matrix) > _MAX_MATRIX:
        return ""
    names = [escape(name, 30) for name in facts.classes]
    rows = [[f"**{name}**", *(str(n) if n else "" for n in row)] for name, row in zip(names, matrix, strict=True)]
    return f"Rows are the true classes, columns the predicted ones.\n\n{table(['', *names], rows)}"


def _data(facts: Facts, answers: Answers, data: DataFacts) -> str:
    rows = [("name", escape(data.name)), ("license", escape(data.license, 300))]
    if data.description:
        rows.append(("what it is", data.description))
    if data.source:
        rows.append(("source", data.source))
    rows.append(("fingerprint", f"{code(data.fingerprint)}"))
    rows += [(f"{name} samples", f"{size:,}") for name, size in facts.splits.items()]
    own = f"{paragraph(answers.data_description)}\n\n" if answers.data_description else ""
    known = table(["data", ""], rows, numeric_from=2)
    return f"{own}{known}\n\nThe data is not in this folder; [croissant.json](croissant.json) is its card for machines."


def _training(facts: Facts, bases: Sequence[str]) -> str:
    config, environment, metrics = facts.record.config, facts.run.environment, facts.record.metrics
    keys = ("optim", "optim.lr", "schedule", "epochs", "batch_size", "limit_batches", "seed", "device.precision")
    rows = [(f"`{key}`", escape(config[key])) for key in keys if config.get(key) is not None]
    if bases:
        rows.append(("began as", escape(", ".join(bases), 300)))
    steps = int(metrics.get("step", 0))
    planned = int(metrics.get("steps", steps))
    rows.append(
        ("updates", f"{steps:,}" + (f" of {planned:,} ({escape(facts.record.state)})" if steps < planned else ""))
    )
    if isinstance(environment.get("device"), str):
        rows.append(("device", escape(environment["device"])))
    if facts.seconds is not None:
        rows.append(("time", f"{facts.seconds:,.3g} s" if facts.seconds < 100 else f"{facts.seconds:,.0f} s"))
    if facts.flops is not None:
        total = format_si(facts.flops * steps, "FLOP")
        upper = "; at most, as a part of the weights was frozen" if facts.is_partly_frozen else ""
        rows.append(("arithmetic", f"{total}: {format_si(facts.flops, 'FLOP')} an update, forward and backward{upper}"))
    if facts.energy is not None:
        rows.append(("energy", f"about {facts.energy.kwh:.2g} kWh, estimated as {escape(facts.energy.method, 200)}"))
    versions = environment.get("versions")
    if isinstance(versions, Mapping):
        shown = [f"{name} {version}" for name, version in versions.items()]
        rows.append(("versions", escape(", ".join([f"python {environment.get('python')}", *shown]), 300)))
    return table(["training", ""], rows, numeric_from=2)
