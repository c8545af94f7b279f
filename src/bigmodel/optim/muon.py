"""Muon (Jordan et al. 2024): momentum, then the nearest orthogonal matrix as the update; here in batches.

Matrices of one shape are stacked and orthogonalized by the same few batched products: a network has many matrices and
few shapes, so that a step launches a handful of kernels, not hundreds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import NonNegative, Positive, PositiveInt, ProperFraction
from bigmodel.optim.groups import weight_decay_groups
from bigmodel.runtime.distributed import current_world
from bigmodel.runtime.world import own_rows

__all__ = ["Muon", "muon"]

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at zero: singular values come near one, not to it


class Muon(torch.optim.Optimizer):
    """Parameters of two dimensions or more, each taken as a matrix with its first dimension as rows.

    `unit` holds each parameter at the norm sqrt(rows) before its update, in place of weight decay (Jordan 2024,
    airbench): for filters that a norm follows, only their direction counts.

    `found_inf`, as of torch's fused optimizers, is a scalar on the parameters' device; where it is 1 a step changes
    nothing, and nobody has to read it to know.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: Positive = 0.02,
        momentum: ProperFraction = 0.95,
        nesterov: bool = True,
        weight_decay: NonNegative = 0.0,
        iterations: PositiveInt = 5,
        unit: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"iterations": iterations, "unit": unit})
        self._newton_schulz = newton_schulz  # or the same, compiled
        if any(parameter.ndim < 2 for group in self.param_groups for parameter in group["params"]):
            raise ValueError("muon takes matrices and filters, not vectors")

    def compile_kernels(self, compile_function: Callable[[Any], Any]) -> None:
        """Replace the orthogonalization by its compiled version."""
        self._newton_schulz = compile_function(newton_schulz)

    @property
    def updates_parts(self) -> bool:
        """Whether a rank that holds some rows of a weight can update them; a fixed norm is that of all rows."""
        return not any(group["unit"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[len(parameter), parameter.numel() // len(parameter)].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = [update.reshape(-1, columns) for update in self._updates(parameters, group)]
                orthogonal = current_world().map_whole(updates, rows, partial(self._orthogonalize, group["iterations"]))
                parameters = [*map(own_rows, parameters)]
                if group["unit"]:
                    norms_B = torch.stack(torch._foreach_norm(parameters))
                    torch._foreach_mul_(parameters, self._unless_found_inf(1.0, math.sqrt(rows) / norms_B).unbind())
                elif group["weight_decay"]:
                    torch._foreach_mul_(parameters, self._number_or_else(1.0, 1 - group["lr"] * group["weight_decay"]))
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))  # the same size of update for every shape
                torch._foreach_add_(
                    parameters,
                    [matrix.view(p.shape) for matrix, p in zip(orthogonal, parameters, strict=True)],
                    alpha=-rate,
                )

    def _orthogonalize(self, iterations: int, stacked_BRC: Tensor) -> Tensor:
        return self._unless_found_inf(0.0, self._newton_schulz(stacked_BRC, iterations))

    def _updates(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> Sequence[Tensor]:
        gradients = [own_rows(parameter.grad) for parameter in parameters if parameter.grad is not None]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(own_rows(state["momentum_buffer"]))
        if self.found_inf is not None:
            gradients = [self._unless_found_inf(0.0, gradient) for gradient in gradients]
        torch._foreach_mul_(buffers, self._number_or_else(1.0, group["momentum"]))
        torch._foreach_add_(buffers, gradients)
        if not group["nesterov"]:
            return buffers
        return torch._foreach_add(gradients, buffers, alpha=group["momentum"])

    def _unless_found_inf(self, idle: float, usual: Tensor) -> Tensor:
        """Return the usual values, or `idle` where `found_inf` says that nothing is to change."""
        return usual if self.found_inf is None else usual.masked_fill(self.found_inf == 1, idle)

    def _number_or_else(self, idle: float, usual: float) -> Tensor | float:
        return usual if self.found_inf is None else self._unless_found_inf(idle, torch.full_like(self.found_inf, usual))


def newton_schulz(matrices_BRC: Tensor, iterations: int) -> Tensor:
    """For each matrix U S V' nearly U V', all singular values between about 0.7 and 1.2 after five iterations.

    Newton-Schulz iteration of degree five on the whole stack, in bf16 on a GPU, whose matrix units are made for it.
    """
    a, b, c = _QUINTIC
    x = matrices_BRC.to(torch.bfloat16 if matrices_BRC.is_cuda else matrices_BRC.dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]  # no singular value above one
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_BRC.dtype)


def muon(
    model: nn.Module,
    lr: Positive = 0.02,
    momentum: ProperFraction = 0.95,
    adamw_lr: Positive = 0.001,
    betas: tuple[ProperFraction, ProperFraction] = (0.9, 0.999),
    weight_decay: NonNegative = 0.01,
    decay_all: bool = False,
    filters: bool = False,
) -> list[torch.optim.Optimizer]:
    """Two optimizers: Muon over the matrices of the linear layers, and with `filters` over those of the convolutions;
    fused AdamW over embeddings, norms, biases and the rest. The first convolution and the last linear layer go to AdamW
    too, as Muon's authors advise, unless there is no other.

    Raises:
        ValueError: the model has no matrix.
    """
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    convolutions = [module.weight for module in model.modules() if isinstance(module, kinds)] if filters else []
    hidden = convolutions[1:] + linear[:-1]
    candidates = hidden or convolutions or linear
    matrices = [weight for weight in candidates if weight.requires_grad and isinstance(weight, nn.Parameter)]
    if not matrices:
        raise ValueError("muon needs a linear layer with trainable weights or, with filters=true, such a convolution")
    chosen = {id(matrix) for matrix in matrices}
    rest = [
        group | {"params": [p for p in group["params"] if id(p) not in chosen]}
        for group in weight_decay_groups(model, weight_decay, decay_all)
    ]
    return [
        Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay),
        torch.optim.AdamW(
            [group for group in rest if group["params"]],
            lr=adamw_lr,
            betas=(float(betas[0]), float(betas[1])),
            fused=True,
        ),
    ]
