"""`bigmodel-share`: write a trained model as a folder that stands alone, with a card, licenses and hashes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel import __version__
from bigmodel.commands.arguments import parse_list, parse_options
from bigmodel.commands.export import export_file, require_onnx
from bigmodel.config.schema import Export
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import escape_control
from bigmodel.inference.predictor import Predictor, load
from bigmodel.runs.sharing import folder
from bigmodel.runs.sharing.author import Answers, read_answers
from bigmodel.runs.sharing.bases import Base, bases_of
from bigmodel.runs.sharing.card import DataFacts, model_card
from bigmodel.runs.sharing.croissant import croissant
from bigmodel.runs.sharing.facts import Facts, gather_facts, read_seeds
from bigmodel.runs.sharing.licenses import DataLicense, data_license, refuse_base, told_of_data
from bigmodel.runs.sharing.private import Names, without_private
from bigmodel.runs.sharing.side_files import licenses_text, metrics_json, requirements
from bigmodel.runs.signature import require_signing
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.stdout import print_line

DEFAULTS = {
    **{"run": "", "to": "", "card": "card.yaml", "also": "", "data_dir": "", "allow": "", "sign": "", "trust": ""},
}
_TOLERANCE = 1e-4  # of what an exported model may differ, as bigmodel-export has it
CHOICES = {"also": ("", "onnx")}
_FIELDS = (
    "input_shape",
    "num_classes",
    "context",
    "vocab_size",
    "channels",
    "target",
)  # keys that say what a sample is


def run(given: Sequence[str]) -> None:
    """Write the folder and print where it is; what was left out is told.

    Raises:
        ConfigError: an option or an answer of the card is wrong or missing, a license forbids it, or what is private
            would be given away.
        StorageError: no checkpoint verifies, or the folder cannot be written.
    """
    settings, rest = parse_options(given, DEFAULTS, CHOICES)
    unknown = [word.partition("=")[0] for word in rest if "=" in word and not Path(word).exists()]
    if unknown:
        raise ConfigError(*(f"{word}: no such setting; {suggest(word, list(DEFAULTS))}" for word in unknown))
    paths = [*parse_list(settings["run"]), *rest]
    if not paths:
        raise ConfigError("run: needs a value: run=outputs/DATE/TIME; bigmodel-runs lists what there is")
    if not settings["to"]:
        raise ConfigError("to: needs a value: the new folder, as to=my_model")
    to = Path(settings["to"])
    folder.refuse_existing(to)
    if settings["also"] == "onnx":
        require_onnx()
    if settings["sign"]:
        require_signing(settings["sign"])
    records = read_seeds(paths)
    answers = read_answers(Path(settings["card"]))
    with StatusLine(plain=False) as status:
        status.show("reading the run")
        predictor = load(str(records[0].path), trust=parse_list(settings["trust"]))
        notes = list(predictor.warnings)
        status.show("gathering what is known")
        facts = gather_facts(records, predictor, settings["data_dir"] or None, answers.watts, notes)
        status.show("writing")
        size, warnings = _write(to, predictor, facts, answers, settings, notes)
    for line in (*notes, *warnings):
        print(f"note: {escape_control(line)}", file=sys.stderr)
    print_line(f"{to} ({size / 1e6:.1f} MB): give it away as it is; bigmodel-predict run={to} reads it")


def _write(
    to: Path,
    predictor: Predictor,
    facts: Facts,
    answers: Answers,
    settings: Mapping[str, str],
    notes: list[str],
) -> tuple[int, list[str]]:
    """Write the folder; return its size, and lines about its licenses."""
    names = Names.of_this_machine(parse_list(settings["allow"]))
    data = _data_license(predictor.config["dataset"], answers)
    if data.text is None:
        raise ConfigError(f"card: data_license: must be answered: '{data.name}' is data of your own")
    bases = bases_of(predictor.config, facts.run.environment.get("directory"), answers)
    warnings = _check_licenses(answers, data, bases)
    config, left_out = without_private(dict(predictor.config), names, str(predictor.config.get("data_dir") or ""))
    if left_out:
        notes.append(f"left out: the folders of {', '.join(left_out[:6])}{' ...' if len(left_out) > 6 else ''}")
    state = {
        "step": predictor.step,
        "steps": int(facts.record.metrics.get("steps", predictor.step)),
        "best": predictor.best,
        "config": config,
        **predictor.processor_spec,
    }
    described = DataFacts(
        model=str(facts.record.config.get("model", "model")),
        name=data.name,
        description=data.summary,
        license=str(data.text),
        fingerprint=str(facts.run.environment.get("dataset", "")),
        source=data.source,
        processor=str(predictor.processor_spec["kind"]),
    )
    texts = {
        folder.CARD: model_card(facts, answers, described, [base.name for base in bases], warnings, to.name),
        folder.LICENSES: licenses_text(answers, data, bases, warnings),
        folder.PACKAGES: requirements(facts.run.environment, __version__, parse_list(settings["trust"])),
        folder.METRICS: metrics_json(facts, answers),
        folder.DATA_CARD: _data_card(facts, described),
        "state.json": json.dumps(state),
    }

    def write_more(scratch: Path) -> None:
        if settings["also"] == "onnx":
            export_file(predictor, Export(str(to), "onnx", str(scratch / "model.onnx"), _TOLERANCE, None))

    own = [text for text in vars(answers).values() if text]
    size = folder.write_folder(
        to, predictor.step, predictor.model.state_dict(), texts, names, own, write_more, settings["sign"]
    )
    return size, warnings


def _data_license(node: Mapping[str, Any], answers: Answers) -> DataLicense:
    """Return what the dataset's YAML states, else what the author says of data of their own."""
    stated = data_license(node)
    if stated.text is not None:
        return stated
    name, text = answers.data_name or stated.name, answers.data_license or None
    return DataLicense(name, text, "", None)


def _check_licenses(answers: Answers, data: DataLicense, bases: Sequence[Base]) -> list[str]:
    """Return what the licenses ask. Raises ConfigError where the one of the first weights forbids the weights' own."""
    weights = answers.license
    told = told_of_data(weights, str(data.text))
    for base in bases:
        if base.license:
            refuse_base(weights, base.license, base.name)
        if base.data is not None and base.data.text is not None:
            told += [f"{base.name}: {line}" for line in told_of_data(weights, base.data.text)]
    return told


def _data_card(facts: Facts, data: DataFacts) -> str:
    config = facts.record.config
    spec = [(name, str(config[f"dataset.{name}"])) for name in _FIELDS if f"dataset.{name}" in config]
    return croissant(
        name=data.name,
        description=data.description or f"The data that {data.model} was trained on",
        license_text=data.license,
        fingerprint=data.fingerprint,
        source=data.source,
        splits=facts.splits,
        classes=facts.classes,
        class_counts=facts.class_counts,
        fields=[(name, text) for name, text in spec if text not in ("null", "None")],
        date=str(facts.run.environment.get("time", ""))[:10],
    )
