"""Describe a built run as a table: the plan that a dry run prints."""

from __future__ import annotations

from bigmodel.formatting import first_line, format_count, format_si
from bigmodel.runtime.device import Device
from bigmodel.training.build import TrainingRun
from bigmodel.training.tuning.rank_cost import RankPlan

_A_MACHINE = 8  # ranks on one, as clusters have them


def describe_run(run: TrainingRun) -> str:
    """Return the plan of a run as lines of a table."""
    state, data, settings, dataset = run.state, run.loader, run.settings, run.dataset
    assert settings.batch_size is not None, "the config of a run that is built has its number"
    splits = ", ".join(f"{size:,} {name}" for name, size in data.splits.items())
    rows = {
        "device": run.device.name + (f"; {run.device.sharding}" if run.device.sharding else ""),
        "precision": run.device.choice,
        "reproducible": _repeats(run),
        "data": f"{splits}; {dataset.description}, {data.describe_placement}",
        "steps": f"{state.steps:,} ({format_count(settings.epochs, 'epoch')} x {data.steps_per_epoch:,}), "
        f"{format_count(settings.batch_size, 'sample')} each",
    }
    try:
        batch = next(data.train_batches(0, 1))
        ranks = RankPlan(state.model, state.task, batch, state.optimizers, run.device, settings)
    except RuntimeError as error:
        rows["cost"] = f"not known for this model: {first_line(error)}"
    else:
        cost = ranks.cost
        frozen = f", {cost.num_trainable:,} of them trained" if cost.num_trainable != cost.num_parameters else ""
        per_step, total = format_si(cost.flops, "FLOP"), format_si(cost.flops * state.steps, "FLOP")
        rows |= {
            "parameters": f"{cost.num_parameters:,}{frozen}",
            "compute": f"{per_step} per step, {total} in total",
            **_describe_memory(ranks, run.device),
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


def _describe_memory(ranks: RankPlan, device: Device) -> dict[str, str]:
    """Return rows about the memory of the run's process, or of each of its ranks, which are alike."""
    room = device.memory_bytes
    if device.count == 1:
        return {"memory": ranks.replicated().describe(room)}
    each = ranks.replicated() if device.parts == 1 else ranks.sharded(device.parts)
    rows = {"each rank": each.describe(room), "if sharded": ranks.sharded(device.count).describe(room)}
    if device.count > _A_MACHINE and device.count % _A_MACHINE == 0:
        rows["if hybrid"] = f"{ranks.sharded(_A_MACHINE).describe(room)}; the model divided among {_A_MACHINE}"
    return rows


def _repeats(run: TrainingRun) -> str:
    """Say what the device promises for a second run, and how to keep a choice that was measured."""
    device = run.device
    if not device.measured:
        return device.reproducibility
    layout = str(bool(device.channels_last)).lower()
    return f"{device.reproducibility}, given device.precision={device.precision} device.channels_last={layout}"
