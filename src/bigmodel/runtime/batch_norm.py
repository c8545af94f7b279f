"""Batch normalization over the whole batch of a step, though each rank has a piece of it.

torch's SyncBatchNorm is for GPUs only. This one takes the place of the module's class, so that its state, its copies
and its evaluation stay those of the module.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bigmodel.runtime.distributed import current_world


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Return the buffers of the model's batch norms: running means and variances, and counts."""
    return [buffer for module in model.modules() if isinstance(module, _BatchNorm) for buffer in module.buffers()]


def share_batch_norms(model: nn.Module) -> int:
    """Have the model's batch norms take mean and variance over the pieces of all ranks; return how many there are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms if current_world().size > 1 else ():
        kind: Any = type(norm)
        norm.__class__ = _sharing_class(kind)
    return len(norms)


@cache
def _sharing_class(kind: Any) -> Any:
    """Return a subclass of a batch norm's class that shares its statistics in training."""

    def forward(self: _BatchNorm, x: Tensor) -> Tensor:
        if not self.training:
            return kind.forward(self, x)  # type: ignore[no-any-return]
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        return _normalize(self, x)

    members: dict[str, Any] = {"forward": forward, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


def _normalize(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Normalize x (N, C, ...) as in training, by the mean and variance of all ranks' x; update the running ones."""
    world = current_world()
    others = [dim for dim in range(x.ndim) if dim != 1]
    wide = x.float()
    variance_C, mean_C = torch.var_mean(wide, others, correction=0)
    count = 0 if world.is_idle else x.numel() // x.shape[1]
    counts_C = torch.full_like(mean_C, count)
    means_RC, variances_RC, counts_RC = world.gather(torch.stack([mean_C, variance_C, counts_C])).unbind(1)
    total_C = counts_RC.detach().sum(0)
    shares_RC = counts_RC.detach() / total_C
    mean_C = (shares_RC * means_RC).sum(0)
    variance_C = (shares_RC * (variances_RC + (means_RC - mean_C) ** 2)).sum(0)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        _update_running(norm, mean_C.detach(), (variance_C * total_C / (total_C - 1).clamp(min=1)).detach())
    shape = [1, -1, *[1] * (x.ndim - 2)]
    scale_C = (variance_C + norm.eps).rsqrt()
    shift_C = -mean_C * scale_C
    if norm.affine:
        scale_C = scale_C * norm.weight
        shift_C = shift_C * norm.weight + norm.bias
    return torch.addcmul(shift_C.view(shape), wide, scale_C.view(shape)).to(x.dtype)


def _update_running(norm: _BatchNorm, mean_C: Tensor, variance_C: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), momentum or 0.0)
    norm.running_var.lerp_(variance_C.to(norm.running_var.dtype), momentum or 0.0)
