"""The plan of a dry run, as a table."""

from __future__ import annotations

from bigmodel.formatting import amount
from bigmodel.training.build import Parts
from bigmodel.training.tuning.cost import cost


def preview(parts: Parts) -> str:
    """The plan of a dry run as a table."""
    job, data, settings, dataset = parts.job, parts.data, parts.settings, parts.dataset
    splits = ", ".join(f"{size:,} {name}" for name, size in data.splits.items())
    rows = {
        "device": parts.device.name,
        "precision": parts.device.choice,
        "repeats": _repeats(parts),
        "data": f"{splits}; {dataset.summary}, {data.placement}",
        "steps": f"{job.steps:,} of {settings.batch_size} samples ({data.steps_per_epoch:,} in each of "
        f"{settings.epochs:g} epochs)",
    }
    try:
        price = cost(job.model, job.task, next(data.train(0, 1)), job.optimizers, settings.accumulate)
    except (NotImplementedError, RuntimeError) as error:
        rows["cost"] = f"not known for this model: {str(error).splitlines()[0]}"
    else:
        frozen = f", {price.trained:,} of them trained" if price.trained != price.parameters else ""
        parts_of_memory = ("weights", "gradients", "optimizer", "activations")
        memory = ", ".join(f"{name} {amount(getattr(price, name), 'B')}" for name in parts_of_memory)
        rows |= {
            "parameters": f"{price.parameters:,}{frozen}",
            "arithmetic": f"{amount(price.flops, 'FLOP')} a step, {amount(price.flops * job.steps, 'FLOP')} in all",
            "memory": f"{amount(price.memory, 'B')} a step: {memory}",
        }
    rows |= {"init": "; ".join(parts.initial)} if parts.initial else {}
    rows |= {"warning": "; ".join(parts.warnings)} if parts.warnings else {}
    rows["nothing"] = "was trained or written: dry_run=true"
    names = {name: parts.config.tree[name]["_target_"].rpartition(".")[2] for name in ("model", "optim", "schedule")}
    rows = names | rows
    lines = [*rows.items()]
    lines[-1:-1] = [("note", text) for text in parts.notes]
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in lines)


def _repeats(parts: Parts) -> str:
    """What the device promises of another run, and how to hold on to a choice that was measured."""
    device = parts.device
    if not device.measured:
        return device.repeats
    layout = str(bool(device.channels_last)).lower()
    return f"{device.repeats}, given device.precision={device.precision} device.channels_last={layout}"
