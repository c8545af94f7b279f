"""Text of `--help`, for users who do not know Hydra. Imports nothing heavy."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bigmodel.commands.help_layout import reflow, two_columns
from bigmodel.commands.help_pages import Pages
from bigmodel.config.location import ConfigSource, conf_directory
from bigmodel.config.outline import Outline

_EXAMPLES = {
    "train": """Examples:
  bigmodel-train                                      the embedded digits
  bigmodel-train dataset=trec epochs=5                other data, with its model
  bigmodel-train -m optim.lr=0.1,0.01 seed=1,2        a sweep of four jobs
  bigmodel-train -m hydra/sweeper=optuna 'optim.lr=interval(0.01,0.1)'""",
    "evaluate": """Examples:
  bigmodel-evaluate run=outputs/2026-01-31/12-00-00-a1b2
  bigmodel-evaluate run=outputs/2026-01-31/12-00-00-a1b2 split=val format=json""",
    "predict": """Examples:
  bigmodel-predict run=outputs/2026-01-31/12-00-00-a1b2 input=photo.png
  bigmodel-predict run=outputs/2026-01-31/12-00-00-a1b2 'input=photos/*.png' format=json""",
    "export": """Examples:
  bigmodel-export run=outputs/2026-01-31/12-00-00-a1b2 format=onnx""",
}
_FLAGS = {
    "--config-dir DIR": "YAML of your own; trust=[PACKAGE] lets it name your code",
    "--config-path DIR": "with --config-name NAME: begin with a YAML of your own",
    "-v, --verbose": "show the traceback of an error; --version: the version",
}
_SWEEP_FLAGS = {
    "resume=RUN": "go on with a run, bitwise; with -m, with a sweep",
    "seeds=N": "N seeds of one config, with mean, deviation and interval",
    "-m, --multirun": "a sweep: all combinations of values; jobs=N at once",
}
_WORDS = {  # which cli.py takes out of a command line
    "resume": "a run or, with -m, a sweep that is to go on from its last checkpoints",
    "seeds": "with as many seeds, from the config's own upward: mean, deviation and a 95 % interval",
    "jobs": "jobs of a sweep that run at the same time; auto: one per core, or per GPU",
    "on_failure": "what a sweep does where a job fails: continue, stop or retry",
    "trust": "packages of your own whose targets YAML may name, as trust=[my_parts]",
}
_SUMMARY = {
    "train": "Train a model from YAML; what comes of it goes to a new directory in outputs/.",
    "evaluate": "Evaluate a trained run on a split of its data.",
    "predict": "Predict with a trained run: images, texts or whatever it was trained on.",
    "export": "Write a trained model in a format that other tools load; it is loaded again and its outputs compared.",
}
_CONFIGLESS = {  # commands that read run directories
    "compare": """Test whether a run or sweep is better than another, and list different settings.

Usage: bigmodel-compare RUN_OR_SWEEP ... [key=value ...]

Each path is a run directory or a sweep. Runs that differ only in their seed count as one configuration: mean, standard
deviation and 95 % interval. Configurations with the same seeds are paired. Of more than two, each is compared with the
best one, with Holm's correction. The runs' task declares which direction is better. If the metric does not measure the
same thing in all runs (other data, splits, task or loss function), the differences are listed and no winner is named.

Settings and their defaults:
  metric:                 as test/accuracy, val/loss or best; default: the monitored one on the test split
  direction:              min or max, for a metric that no run declares
  force: false            true: name a winner anyway
  format: table           table, or json: one line

Examples:
  bigmodel-compare outputs/2026-01-31/12-00-00-a1b2 outputs/2026-01-31/15-00-00-c3d4
  bigmodel-compare outputs/sweeps/2026-01-31_12-00-00-a1b2 metric=val/loss format=json""",
    "runs": """List the runs under outputs/, including those of sweeps.

Usage: bigmodel-runs [condition ...] [key=value ...]

A condition is any key of a run's config or metrics with a value: model=cnn, 'optim.lr>0.01', 'test/accuracy>=0.9',
state=done (done, early_stopped, failed, interrupted, pruned, running), 'age<2d'. All of them must hold.

Settings and their defaults:
  sort: age               any key; metrics with the best first, sort=-KEY reversed
  filter:                 several conditions: filter='model=cnn optim.lr>0.01'
  limit: null             how many to list
  format: table           table, or json: one line per run
  output_dir: outputs     where run directories lie

Examples:
  bigmodel-runs sort=test/accuracy limit=10
  bigmodel-runs state=failed 'age<1d'
  bigmodel-runs model=cnn 'optim.lr>0.01' format=json""",
    "report": """Write one HTML page about a run, several runs or a sweep: curves, mistakes and tables, in one file.

Usage: bigmodel-report run=RUN_OR_SWEEP [key=value ...]

A run's page goes into its directory as report.html, a sweep's likewise; that of several runs, run=[A,B], into the
working directory. An earlier page is replaced. For a run, its best checkpoint predicts a part of its test data, else of
its validation data, on which the page shows what it got wrong. Needs: pip install 'bigmodel-train[plots]'.

Settings and their defaults:
  run:                    a run directory, a sweep, or several as [A,B]; paths without run= are taken as well
  output: null            the file to write, which ends in .html
  predictions: true       false: no predictions, so that neither checkpoint nor data is read
  device: auto            where the model predicts: auto, cpu, cuda, cuda:1, mps
  data_dir: null          where the data lies; null: where it lay when the run was trained
  trust=[PACKAGE]         let the run's config name targets of your own package

Examples:
  bigmodel-report run=outputs/2026-01-31/12-00-00-a1b2
  bigmodel-report run=[outputs/2026-01-31/12-00-00-a1b2,outputs/2026-01-31/15-00-00-c3d4] output=both.html
  bigmodel-report run=outputs/sweeps/2026-01-31_12-00-00-a1b2""",
    "merge": """Make one model of several runs' weights (a model soup), test it, and save it as a run of its own.

Usage: bigmodel-merge runs=[A,B,...] [key=value ...]

The runs must have one model and the same data, and should have begun with the same weights. Their best checkpoints are
merged; the config of the new run, that of the first with epochs=0, names them all.

Settings and their defaults:
  runs:                   run directories or checkpoints, as [A,B]; paths without runs= are taken as well
  how: average            greedy: best first, only those that do not make it worse; slerp: between two; ties: their
                          largest changes from a base, where they agree
  weights:                for average, slerp and ties: one factor a run, as [2,1]; default: equal
  metric:                 what greedy chooses by, on the validation data; default: the runs' monitor
  base:                   for ties: the run or file that all were tuned from
  density: 0.2            for ties: the share of each run's changes that counts
  scale: 1                for ties: factor of the merged changes
  device: auto            where it is tested: auto, cpu, cuda, mps
  data_dir:               where the data lies; default: where it lay when the runs were trained
  output_dir:             where the new run goes; default: where the first one's config says
  trust=[PACKAGE]         let the runs' configs name targets of your own package

Examples:
  bigmodel-merge runs=[outputs/2026-01-31/12-00-00-a1b2,outputs/2026-01-31/15-00-00-c3d4] how=greedy
  bigmodel-merge outputs/2026-01-31/* how=greedy""",
}
_CONFIGLESS_FLAGS = """
Flags:
  -v                 show the traceback of an error
  --version, --help"""


def help_text(command: str, topics: Sequence[str] = (), source: ConfigSource | None = None) -> str:
    """Return the page of one command, or what its YAML says of each topic: `model`, `model=gpt`, `epochs` or `keys`.

    `source` is where choices and the root file are looked for.

    Raises:
        ConfigError: a line for each topic that is neither a group nor a key.
    """
    columns = shutil.get_terminal_size().columns
    if command in _CONFIGLESS:
        return reflow(_CONFIGLESS[command] + "\n" + _CONFIGLESS_FLAGS, columns)
    words = _WORDS if command == "train" else {"trust": _WORDS["trust"]}
    outline = Outline(source or ConfigSource((conf_directory(),), command), topics)
    pages = Pages(command, outline, topics, words, columns)
    if topics:
        return pages.topics()
    rows = (_SWEEP_FLAGS if command == "train" else {}) | _FLAGS
    parts = (
        f"{_SUMMARY[command]}\n\nUsage: bigmodel-{command} [GROUP=CHOICE ...] [KEY=VALUE ...] [flags]",
        pages.groups(),
        pages.keys(),
        "\n".join(["Flags, and words that are not keys:", *two_columns(rows.items(), columns)]),
        _EXAMPLES[command],
    )
    return "\n\n".join(reflow(part, columns) for part in parts if part)
