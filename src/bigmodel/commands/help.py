"""`--help`, read from the YAML files themselves, for somebody who never saw Hydra. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from bigmodel.config.location import conf_directory

_EXAMPLES = {
    "train": """Examples:
  bigmodel-train                                             train on the embedded digits
  bigmodel-train model=cnn optim=sgd device=cuda             choose from groups
  bigmodel-train dataset=cifar10 model=resnet18 optim.lr=0.1 epochs=30 batch_size=512
  bigmodel-train -m optim.lr=0.1,0.01 seed=1,2               a sweep: every combination
  bigmodel-train -m hydra/sweeper=optuna 'optim.lr=tag(log,interval(1e-4,1e-1))'   a search
  bigmodel-train optim=adamw seeds=5                         five seeds: mean, deviation and a 95 % interval
  bigmodel-train -m resume=outputs/sweeps/2026-01-31_12-00-00-a1b2   a sweep goes on
  bigmodel-train batch_size=auto optim.lr=auto               find both on this machine, then train
  bigmodel-train profile=true                                where time and memory go
  bigmodel-train experiment=article                          a whole recipe
  bigmodel-train resume=outputs/2026-01-31/12-00-00-a1b2     go on, bitwise
  bigmodel-train dry_run=true                                print the plan only""",
    "evaluate": """Examples:
  bigmodel-evaluate run=outputs/2026-01-31/12-00-00-a1b2
  bigmodel-evaluate run=outputs/2026-01-31/12-00-00-a1b2 split=val format=json""",
    "predict": """Examples:
  bigmodel-predict run=outputs/2026-01-31/12-00-00-a1b2 input=photo.png
  bigmodel-predict run=outputs/2026-01-31/12-00-00-a1b2 'input=photos/*.png' format=json""",
    "export": """Examples:
  bigmodel-export run=outputs/2026-01-31/12-00-00-a1b2 format=onnx""",
}
_SWEEP = (
    "  seeds=N            train with N seeds, from the config's own upward: with or without -m",
    "  -m, --multirun     try every combination of comma-separated values; with it",
    "    jobs=N           so many at a time (auto: one a core, or one a GPU)",
    "    on_failure=...   continue, stop or retry",
)
_SUMMARY = {
    "train": "Train a model from YAML; checkpoints, logs and metrics go to a new directory under outputs/.",
    "evaluate": "Measure a trained run on a split of its data.",
    "predict": "Ask a trained run about images, texts or whatever it was trained on.",
    "export": "Write a trained model in a format other tools load; it is loaded again and compared first.",
}
_READERS = {  # of what runs left: they have no config
    "compare": """Say whether a run or sweep is better than another, and what was set differently.

Usage: bigmodel-compare RUN_OR_SWEEP ... [key=value ...]

Each path is a run directory or a sweep. Runs that differ in their seed alone count as one point: mean, deviation and a
95 % interval. Points are paired by seed where their seeds match; of more than two, each is held against the best, with
Holm's correction. Which direction is better is what the runs' task declared. Where the metric is not one measure for
all runs, as of other data, splits or tasks, or a loss of another loss function, that is told first and no winner named.

Settings and their defaults:
  metric:                 as test/accuracy, val/loss or best; the monitored one on the test split if left out
  direction:              min or max, for a metric that no run declares
  force: false            true: name a winner all the same
  format: table           table, or json: one line

Examples:
  bigmodel-compare outputs/2026-01-31/12-00-00-a1b2 outputs/2026-01-31/15-00-00-c3d4
  bigmodel-compare outputs/sweeps/2026-01-31_12-00-00-a1b2 metric=val/loss format=json""",
    "runs": """List the runs that lie under outputs/, those of sweeps included.

Usage: bigmodel-runs [condition ...] [key=value ...]

A condition is any key of a run's config or metrics with a value: model=cnn, 'optim.lr>0.01', 'test/accuracy>=0.9',
state=done (done, early_stopped, failed, interrupted, pruned, running), 'age<2d'. All of them must hold.

Settings and their defaults:
  sort: age               any key; metrics with the best first, sort=-KEY the other way round
  filter:                 conditions in one word: filter='model=cnn optim.lr>0.01'
  limit: null             how many to list
  format: table           table, or json: one line a run
  output_dir: outputs     where run directories lie

Examples:
  bigmodel-runs sort=test/accuracy limit=10
  bigmodel-runs state=failed 'age<1d'
  bigmodel-runs model=cnn 'optim.lr>0.01' format=json""",
}
_READERS_FLAGS = """
Flags:
  -v                 show the traceback of an error
  --version, --help"""


def help_text(verb: str, config_dir: Path | None = None) -> str:
    """Usage, settings, groups with their choices, and examples of one command."""
    if verb in _READERS:
        return _READERS[verb] + "\n" + _READERS_FLAGS
    own = conf_directory()
    directories = [own] if config_dir is None else [own, config_dir]
    groups, settings = _parse_root_yaml(own / f"{verb}.yaml")
    lines = [_SUMMARY[verb], "", f"Usage: bigmodel-{verb} [group=choice ...] [key=value ...] [flags]", ""]
    if groups:
        lines.append("Groups, each a choice of YAML files (* is the default):")
        for group, default in groups.items():
            lines += [f"  {group}", *_choices(directories, group, default)]
        lines += ["  Any key inside a choice can be set too, as optim.lr=0.1", ""]
    lines += ["Settings and their defaults:", *(f"  {setting}" for setting in settings), ""]
    lines += [
        "Flags:",
        *(_SWEEP if verb == "train" else ()),
        "  --config-dir DIR   lay your own YAML groups over the built-in ones",
        "  --config-path DIR --config-name NAME   start from a YAML of your own, as a run's config.yaml",
        "  trust=[PACKAGE]    let YAML name targets of your own package",
        "  -v                 show the traceback of an error",
        "  --version, --help",
        "",
        _EXAMPLES[verb],
    ]
    return "\n".join(lines)


def _parse_root_yaml(file: Path) -> tuple[dict[str, str], list[str]]:
    """The default choice of each group, and the lines of the settings, of a root YAML file."""
    groups: dict[str, str] = {}
    settings: list[str] = []
    section = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(("defaults:", "hydra:")):
            section = line.partition(":")[0]
        elif section == "defaults" and line.startswith("  - ") and "_self_" not in line:
            group, _, default = line[4:].partition(": ")
            groups[group] = default.strip("[] ")
        elif line[:1].isalpha():
            section = ""
            settings.append(line)
    return groups, settings


def _choices(directories: list[Path], group: str, default: str) -> list[str]:
    files = {path.stem: path for directory in directories for path in sorted((directory / group).glob("*.yaml"))}
    lines = []
    for name, path in files.items():
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.startswith("# ") and "@package" not in line), "# ")
        mark = "*" if name in default.split(",") else " "
        lines.append(f"   {mark} {name:<16} {first[2:].strip()}")
    return lines
