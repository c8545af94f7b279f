"""Every experiment of conf/experiment in a shortened form: a few batches of training, then an answer to raw input.

    python scripts/examples.py             # all; the exit code is 1 if one fails
    python scripts/examples.py trec yesno  # these

The commands are the real ones, each a process of its own with one thread. Nothing is downloaded: where the data, or an
optional package, is not there, the experiment is skipped. Numbers of a shortened run say that it runs, not how good it
is.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import truncate

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.stem for path in (conf_directory() / "experiment").glob("*.yaml"))
QUICK = ("limit_batches=2", "device=cpu", "device.threads=1")
BATCH = 16


class Failed(Exception):
    """A command ended with this exit code and line."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def composed(name: str) -> Mapping[str, Any]:
    return compose("train", [f"experiment={name}"], ConfigSource((conf_directory(),), "train")).values


def words(name: str, tree: Mapping[str, Any]) -> list[str]:
    """What makes the experiment short. Raises Failed if weights that it begins with are not there."""
    start = tree["init"]["from"]
    if start is not None and not (ROOT / start).exists():
        raise Failed(DataError.exit_code, f"there is no {start}")
    short = {"epochs": min(tree["epochs"], 1), "batch_size": min(tree["batch_size"] or BATCH, BATCH)}
    if "download" in tree["dataset"]:
        short["dataset.download"] = "false"
    return [f"experiment={name}", *QUICK, *(f"{key}={value}" for key, value in short.items())]


def command(verb: str, *given: str) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "bigmodel", verb, *given], cwd=ROOT, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise Failed(done.returncode, next(iter(lines), "no word"))
    return done.stdout


_OPTIONS = {"SpeechSynthesisProcessor": "output={folder}", "TextGenerationProcessor": "sample.max_new_tokens=20"}


def raw_input(about: Mapping[str, Any], folder: Path) -> str | None:
    """What `input=` may be for a model of such data, by the name of its kind; None for one that is not known here."""
    file = folder / "raw"
    match about["kind"].rpartition(".")[2]:
        case "ImageClassificationProcessor":
            channels, height, width = about["input_shape"]
            pixels = random.Random(0).randbytes(channels * height * width)
            Image.frombytes({1: "L", 3: "RGB"}[channels], (width, height), pixels).save(file.with_suffix(".png"))
            return str(file.with_suffix(".png"))
        case "AudioClassificationProcessor" | "SpeechRecognitionProcessor":
            with wave.open(str(file.with_suffix(".wav")), "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
                sound.writeframes(random.Random(0).randbytes(16_000))
            return str(file.with_suffix(".wav"))
        case "TableProcessor":
            row = {name: str(mean) for name, mean in zip(about["numbers"], about["mean"], strict=True)}
            row |= {name: values[0] for name, values in about["categories"].items()}
            return _table(file, about, about["columns"] or list(row), [row], header=about["columns"] is None)
        case "ForecastProcessor":
            steps = [dict.fromkeys(about["columns"], str(1 + step % 5)) for step in range(about["window"])]
            return _table(file, about, about["columns"], steps)
        case "SpeechSynthesisProcessor":
            return str(about["classes"][0])
        case "TranslationProcessor":
            return "Old French"
        case "TextClassificationProcessor" | "TextRegressionProcessor" | "TextMultiLabelProcessor" if (
            about["tokenizer"]["name"] == "smiles"
        ):
            return "CCO"
        case "TextGenerationProcessor" if about["tokenizer"]["name"] == "char":
            return "ma"  # letters that every such text has
        case "TextClassificationProcessor" | "TextGenerationProcessor":
            return "What light through yonder window breaks ?"
    return None


def _table(
    file: Path, about: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Mapping[str, str]], header: bool = True
) -> str:
    lines = [list(columns)] * header + [[row.get(column, "") for column in columns] for row in rows]
    file = file.with_suffix(".csv")
    file.write_text("".join(about["separator"].join(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def example(name: str, tree: Mapping[str, Any]) -> tuple[str, str, str]:
    """State, result and answer."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            command("train", *words(name, tree), f"output_dir={folder}")
        except Failed as failed:
            return ("skipped" if _is_lacking(failed) else "FAILED"), str(failed), ""
        (run,) = folder.glob("????-??-??/*")
        result = _result(json.loads((run / "summary.json").read_text(encoding="utf-8")))
        try:
            return "ok", result, _answer(run, folder)
        except Failed as failed:
            return "FAILED", result, str(failed)


def _is_lacking(failed: Failed) -> bool:
    """Whether it failed for want of data, or of an optional package that a line of it says how to install."""
    missing = failed.code == ConfigError.exit_code and "pip install 'bigmodel-train[" in str(failed)
    return failed.code == DataError.exit_code or missing


def _result(summary: Mapping[str, Any]) -> str:
    """The monitored metric, of the test data where there is any."""
    split = "test" if summary.get("test") else "val"
    metrics = summary[split]
    metric = (summary["monitor"] or "val/loss").partition("/")[2]
    return f"{split} {metric} {metrics[metric]:.4g}"


def _answer(run: Path, folder: Path) -> str:
    """The first words of what the run says of raw input."""
    state = max((run / "checkpoints").glob("step-*")) / "state.json"
    about = json.loads(state.read_text(encoding="utf-8"))
    given = raw_input(about, folder)
    if given is None:
        return "not asked"
    options = _OPTIONS.get(about["kind"].rpartition(".")[2], "").format(folder=folder).split()
    how = (*options, "format=json", *QUICK[1:])
    _, answer, *_ = json.loads(command("predict", f"run={run}", f"input={given}", *how).splitlines()[0]).values()
    return truncate(answer, 40)


def timed(name: str, tree: Mapping[str, Any]) -> tuple[str, str, str, float]:
    began = monotonic()
    return *example(name, tree), monotonic() - began


def main(names: Sequence[str]) -> int:
    failed = False
    trees = list(map(composed, names))  # Hydra knows no threads
    width = max(map(len, ("experiment", *names)))
    print(f"{'experiment':<{width}}  state    seconds  {'shortened run':<24}  answer to raw input")
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for name, (state, result, answer, seconds) in zip(names, pool.map(timed, names, trees), strict=True):
            print(f"{name:<{width}}  {state:<7}  {seconds:>7.1f}  {result:<24}  {answer}".rstrip(), flush=True)
            failed |= state == "FAILED"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or EXPERIMENTS))
