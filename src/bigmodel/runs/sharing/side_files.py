"""The small files beside the card: LICENSES.md, requirements.txt and metrics.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.runs.sharing.author import Answers
from bigmodel.runs.sharing.bases import Base
from bigmodel.runs.sharing.facts import Facts
from bigmodel.runs.sharing.licenses import DataLicense
from bigmodel.runs.sharing.markdown import escape, table

_VERSION = re.compile(r"\d[\w.!-]*")
_PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]*")
_ENVIRONMENT = ("time", "python", "versions", "device", "dataset", "git")  # the rest is private
_LONGEST = 400


def licenses_text(answers: Answers, data: DataLicense, bases: Sequence[Base], told: Sequence[str]) -> str:
    """Return LICENSES.md: what each part is under, and what mixing them asks."""
    rows = [
        ("the weights", escape(answers.license_text)),
        (f"the data: {escape(data.name)}", escape(data.text, _LONGEST)),
    ]
    for base in bases:
        rows.append((f"weights they began as: {escape(base.name)}", escape(base.license or "of the same author")))
        if base.data is not None and base.data.text is not None:
            rows.append((f"data of those: {escape(base.data.name)}", escape(base.data.text, _LONGEST)))
    rows.append(("the program, bigmodel-train", "apache-2.0"))
    lines = ["# Licenses", "", table(["part", "license"], rows, numeric_from=2)]
    if answers.license_link:
        lines += ["", f"The text of the weights' license: {answers.license_link}"]
    if told:
        lines += ["", "What mixing them asks:", "", *(f"- {escape(line, _LONGEST)}" for line in told)]
    return "\n".join(lines) + "\n"


def requirements(environment: Mapping[str, Any], this_version: str, trust: Sequence[str]) -> str:
    """Return the versions that the run was trained with, as pip reads them; 2.11+cu130 becomes 2.11."""
    given = environment.get("versions")
    versions = dict(given) if isinstance(given, Mapping) else {}
    versions.setdefault("bigmodel-train", this_version)
    lines = [f"# Python {environment['python']}"] if _VERSION.fullmatch(str(environment.get("python"))) else []
    for name, version in versions.items():
        plain = str(version).partition("+")[0]
        if _PACKAGE.fullmatch(str(name)) and _VERSION.fullmatch(plain):
            lines.append(f"{name}=={plain}")
    lines += [f"# and the package {name}, which the model's config names" for name in trust]
    return "\n".join(lines) + "\n"


def metrics_json(facts: Facts, answers: Answers) -> str:
    """Return the facts of the card for programs."""
    environment, record = facts.run.environment, facts.record
    found = {
        "license": answers.license_text,
        "state": record.state,
        "step": int(record.metrics.get("step", 0)),
        "steps": int(record.metrics.get("steps", 0)),
        "seconds": facts.seconds,
        "splits": facts.splits,
        "split": facts.split,
        "metrics": {one.name: _measure(one) for one in facts.measures},
        "confusion": facts.confusion,
        "classes": list(facts.classes),
        "class_counts": facts.class_counts,
        "parameters": facts.num_parameters,
        "flop_per_update": facts.flops,
        "energy": None if facts.energy is None else facts.energy._asdict(),
        "environment": {key: environment.get(key) for key in _ENVIRONMENT},
    }
    return json.dumps({key: value for key, value in found.items() if value is not None}, indent=1) + "\n"


def _measure(one: Any) -> dict[str, Any]:
    seeds = one.seeds
    found = {
        "value": one.value,
        "direction": one.spec.direction,
        "unit": one.spec.unit or None,
        "interval": one.interval,
        "seeds": None if seeds is None else {"n": seeds.n, "mean": seeds.mean, "low": seeds.low, "high": seeds.high},
    }
    return {key: value for key, value in found.items() if value is not None}
