"""Text of `--help`, read from the YAML files, for users who do not know Hydra. Imports nothing heavy."""

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
  bigmodel-train -m resume=outputs/sweeps/2026-01-31_12-00-00-a1b2   resume a sweep
  bigmodel-train batch_size=auto optim.lr=auto               tune both on this machine, then train
  bigmodel-train profile=true                                where time and memory go
  bigmodel-train experiment=article                          a whole recipe
  bigmodel-train resume=outputs/2026-01-31/12-00-00-a1b2     resume, bitwise
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
    "  -m, --multirun     run every combination of comma-separated values as a sweep, with:",
    "    jobs=N           jobs run at the same time (auto: one per core, or per GPU)",
    "    on_failure=...   continue, stop or retry",
)
_SUMMARY = {
    "train": "Train a model from YAML; checkpoints, logs and metrics go to a new directory under outputs/.",
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
}
_CONFIGLESS_FLAGS = """
Flags:
  -v                 show the traceback of an error
  --version, --help"""


def help_text(command: str, config_dir: Path | None = None) -> str:
    """Return usage, config groups with their choices, settings and examples of one command."""
    if command in _CONFIGLESS:
        return _CONFIGLESS[command] + "\n" + _CONFIGLESS_FLAGS
    own = conf_directory()
    directories = [own] if config_dir is None else [own, config_dir]
    groups, settings = _parse_root_yaml(own / f"{command}.yaml")
    lines = [_SUMMARY[command], "", f"Usage: bigmodel-{command} [group=choice ...] [key=value ...] [flags]", ""]
    if groups:
        lines.append("Groups, each a choice of YAML files (* is the default):")
        for group, default in groups.items():
            lines += [f"  {group}", *_choices(directories, group, default)]
        lines += ["  Any key inside a choice can be set too, as optim.lr=0.1", ""]
    lines += ["Settings and their defaults:", *(f"  {setting}" for setting in settings), ""]
    lines += [
        "Flags:",
        *(_SWEEP if command == "train" else ()),
        "  --config-dir DIR   add your own YAML groups to the built-in ones",
        "  --config-path DIR --config-name NAME   start from a YAML of your own, as a run's config.yaml",
        "  trust=[PACKAGE]    let YAML name targets of your own package",
        "  -v                 show the traceback of an error",
        "  --version, --help",
        "",
        _EXAMPLES[command],
    ]
    return "\n".join(lines)


def _parse_root_yaml(file: Path) -> tuple[dict[str, str], list[str]]:
    """Return the default choice of each config group, and the lines of the settings, of a root YAML file."""
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
