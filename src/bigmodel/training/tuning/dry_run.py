"""The plan of a dry run, as a table."""

from __future__ import annotations

from bigmodel.formatting import format_si
from bigmodel.training.build import TrainingRun
from bigmodel.training.tuning.cost import estimate_step_cost


def describe_run(run: TrainingRun) -> str:
    """The plan of a dry run as a table."""
    state, data, settings, dataset = run.state, run.loader, run.settings, run.dataset
    splits = ", ".join(f"{size:,} {name}" for name, size in data.splits.items())
    rows = {
        "device": run.device.name,
        "precision": run.device.choice,
        "repeats": _repeats(run),
        "data": f"{splits}; {dataset.description}, {data.describe_placement}",
        "steps": f"{state.steps:,} of {settings.batch_size} samples ({data.steps_per_epoch:,} in each of "
        f"{settings.epochs:g} epochs)",
    }
    try:
        cost = estimate_step_cost(
            state.model, state.task, next(data.train_batches(0, 1)), state.optimizers, settings.accumulate
        )
    except (NotImplementedError, RuntimeError) as error:
        rows["cost"] = f"not known for this model: {str(error).splitlines()[0]}"
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
    rows["nothing"] = "was trained or written: dry_run=true"
    names = {name: run.config.values[name]["_target_"].rpartition(".")[2] for name in ("model", "optim", "schedule")}
    rows = names | rows
    lines = [*rows.items()]
    lines[-1:-1] = [("note", text) for text in run.notes]
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in lines)


def _repeats(run: TrainingRun) -> str:
    """What the device promises of another run, and how to hold on to a choice that was measured."""
    device = run.device
    if not device.measured:
        return device.reproducibility
    layout = str(bool(device.channels_last)).lower()
    return f"{device.reproducibility}, given device.precision={device.precision} device.channels_last={layout}"
