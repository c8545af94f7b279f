"""The plan of a dry run, as a table."""

from __future__ import annotations

from bigmodel.assembly import Parts
from bigmodel.cost import amount, cost


def preview(parts: Parts) -> str:
    """The plan of a dry run as a table."""
    job, data, settings, dataset = parts.job, parts.data, parts.settings, parts.dataset
    shape = "x".join(map(str, dataset.input_shape))
    splits = ", ".join(f"{size:,} {name}" for name, size in data.splits.items())
    layout = "channels-last" if parts.device.channels_last else "contiguous"
    rows = {
        "device": parts.device.name,
        "precision": f"{parts.device.precision}, {layout}; {parts.device.why}",
        "repeats": parts.device.repeats,
        "data": f"{splits}; {len(dataset.classes)} classes, {shape}, {_where(parts)}",
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
    rows["nothing"] = "was trained or written: dry_run=true"
    names = {name: parts.config.tree[name]["_target_"].rpartition(".")[2] for name in ("model", "optim", "schedule")}
    rows = names | rows
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in rows.items())


def _where(parts: Parts) -> str:
    """Which pipeline serves the training images, and why."""
    size, bound, workers = amount(parts.data.bytes, "B"), parts.settings.resident_gb, parts.settings.workers
    if parts.data.resident:
        return f"in the device's memory ({size}, not above resident_gb={bound:g})"
    by = f"streamed by {workers} worker{'s' if workers > 1 else ''}" if workers else "streamed without workers"
    return f"{by} ({size}, above resident_gb={bound:g})"
