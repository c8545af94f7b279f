"""Describe a built run as a table: the plan that a dry run prints."""

from __future__ import annotations

from bigmodel.formatting import first_line, format_si
from bigmodel.training.build import TrainingRun
from bigmodel.training.tuning.cost import estimate_step_cost


def describe_run(run: TrainingRun) -> str:
    """Return the plan of a run as lines of a table."""
    state, data, settings, dataset = run.state, run.loader, run.settings, run.dataset
    splits = ", ".join(f"{size:,} {name}" for name, size in data.splits.items())
    rows = {
        "device": run.device.name + (f"; {run.device.sharding}" if run.device.sharding else ""),
        "precision": run.device.choice,
        "reproducible": _repeats(run),
        "data": f"{splits}; {dataset.description}, {data.describe_placement}",
        "steps": f"{state.steps:,} ({settings.epochs:g} epochs x {data.steps_per_epoch:,}), "
        f"{settings.batch_size} samples each",
    }
    try:
        cost = estimate_step_cost(
            state.model, state.task, next(data.train_batches(0, 1)), state.optimizers, settings.accumulate
        )
    except RuntimeError as error:
        rows["cost"] = f"not known for this model: {first_line(error)}"
    else:
        frozen = f", {cost.num_trainable:,} of them trained" if cost.num_trainable != cost.num_parameters else ""
        memory = ", ".join(f"{name} {format_si(size, 'B')}" for name, size in cost.memory_by_use.items())
        per_step, total = format_si(cost.flops, "FLOP"), format_si(cost.flops * state.steps, "FLOP")
        rows |= {
            "parameters": f"{cost.num_parameters:,}{frozen}",
            "compute": f"{per_step} per step, {total} in total",
            "memory": f"{format_si(cost.memory, 'B')} a step: {memory}",
        }
    rows |= {"init": "; ".join(run.init_report)} if run.init_report else {}
    rows |= {"warning": "; ".join(run.warnings)} if run.warnings else {}
    rows["dry run"] = "nothing was trained or written"
    names = {name: run.config.values[name]["_target_"].rpartition(".")[2] for name in ("model", "optim", "schedule")}
    rows = names | rows
    lines = [*rows.items()]
    lines[-1:-1] = [("note", text) for text in run.notes]
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in lines)


def _repeats(run: TrainingRun) -> str:
    """Say what the device promises for a second run, and how to keep a choice that was measured."""
    device = run.device
    if not device.measured:
        return device.reproducibility
    layout = str(bool(device.channels_last)).lower()
    return f"{device.reproducibility}, given device.precision={device.precision} device.channels_last={layout}"
