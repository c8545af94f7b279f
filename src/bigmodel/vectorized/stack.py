"""Jobs that differ in numbers only, as one: their weights are rows of stacked tensors, and an update is made for all.

The forward pass goes through `torch.vmap`, so that a layer of all jobs is one batched operation. Each `Job` stays what
it is: its parameters, buffers, optimizer state and sums are views of its rows, and whoever saves, restores or evaluates
it sees nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from bigmodel.divergence import Update
from bigmodel.errors import DivergedError
from bigmodel.interfaces import Batch
from bigmodel.job import Job
from bigmodel.losses import CrossEntropy
from bigmodel.vectorized.replaced import Drop, Replaced, mask
from bigmodel.vectorized.steps import Descent, has_stacked_step

_IN_CACHE = 50_000  # parameters of a job


class Stack:
    """K jobs on one device whose models, tasks and optimizers are of the same make."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self._first, self._device = jobs[0], jobs[0].device
        models = [job.model for job in jobs]
        self._own = [dict(model.named_parameters()) for model in models]
        self._weights = {name: _stacked([own[name] for own in self._own]) for name in self._own[0]}
        for name, weight in self._weights.items():
            weight.requires_grad_(self._own[0][name].requires_grad)
        buffers = [dict(model.named_buffers()) for model in models]
        self._buffers = {name: _stacked([own[name] for own in buffers]) for name in buffers[0]}
        self._drops: dict[tuple[torch.Size, bool], list[Drop]] = {}
        self._trained = [name for name, weight in self._weights.items() if weight.requires_grad]
        self._descents = self._stacked_steps()
        criteria: list[Any] = [getattr(job.task, "criterion", None) for job in jobs]
        self._criterion = criteria[0]
        self._smoothing_K: Tensor | None = None
        values = [each.label_smoothing for each in criteria if isinstance(each, CrossEntropy)]
        if len(values) == len(jobs) and len(set(values)) > 1:
            self._smoothing_K = torch.tensor(values, device=self._device.torch_device)

    def update(self, batches: Sequence[Batch]) -> list[DivergedError | None]:
        """One optimizer step of every job, on its own batch; the batches have one shape.

        Returns what ends a job: loss or gradient is not finite, its weights are as they were.
        """
        losses_K, tallies_K = self.gradients(batches)
        gradients = {name: self._weights[name].grad for name in self._trained}
        there = [gradient.detach() for gradient in gradients.values() if gradient is not None]
        norms_nK = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in there])
        norm_K = torch.linalg.vector_norm(norms_nK, dim=0)
        errors: list[DivergedError | None] = [None] * len(self.jobs)
        for row, (job, norm, finite) in enumerate(zip(self.jobs, norm_K, norm_K.isfinite().tolist(), strict=True)):
            job.grad_norm = norm
            if not finite:
                loss_norm = torch.stack([losses_K[row].float(), norm.float()])
                update = Update(job.step, job.last_lr, batches[row].samples, loss_norm)
                errors[row] = DivergedError(update.words())
        if self._first.clip_norm is not None:
            scale_K = (self._first.clip_norm / (norm_K + 1e-6)).clamp(max=1.0)
            for gradient in there:
                gradient.mul_(scale_K.view(-1, *(1,) * (gradient.ndim - 1)))
        self._descend(gradients, [row for row, error in enumerate(errors) if error])
        for job, error, tally in zip(self.jobs, errors, tallies_K, strict=True):
            if error is None:
                job.tally = tally if job.tally is None else job.tally + tally
                job.end_step()
        return errors

    def gradients(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Leave the gradients in the stacked weights. Returns the last piece's losses (K,) and the tallies (K, ...)."""
        for job in self.jobs:
            job.begin_step()
        pieces = list(zip(*(batch.pieces(self._first.accumulate) for batch in batches), strict=True))
        masks = self._masks(pieces)
        tallies_K: Tensor | None = None
        for piece, masks_K in zip(pieces, masks, strict=True):
            losses_K, added_K = self._losses(piece, masks_K)
            counts_K = 1 if len(pieces) == 1 else added_K[:, 0].detach()
            (losses_K * counts_K).sum().backward()  # type: ignore[no-untyped-call]
            added_K = added_K.detach().to(self._device.sum_dtype)
            tallies_K = added_K if tallies_K is None else tallies_K + added_K
        assert tallies_K is not None
        if len(pieces) > 1:
            totals_K = torch.where(tallies_K[:, 0] > 0, tallies_K[:, 0], 1)
            for weight in self._weights.values():
                if weight.grad is not None:
                    weight.grad /= totals_K.to(weight.dtype).view(-1, *(1,) * (weight.ndim - 1))
        return losses_K.detach(), tallies_K

    def drop_gradients(self) -> None:
        """Forget what `gradients` has left."""
        for weight in self._weights.values():
            weight.grad = None

    def outputs(self, inputs: Sequence[Tensor]) -> Tensor:
        """What each job's model makes of its inputs, in the mode that it is in: (K, N, ...)."""
        inputs_K, dim = _together(inputs)

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
            with Replaced(()):
                return functional_call(self._first.model, (weights, buffers), (x,))

        outputs_K: Tensor = torch.vmap(one, (0, 0, dim))(self._weights, self._buffers, inputs_K)
        return outputs_K

    def gradient(self, name: str, row: int) -> Tensor | None:
        """A job's row of what `gradients` has left in the parameter of this name."""
        gradient = self._weights[name].grad
        return None if gradient is None else gradient[row]

    def _losses(self, batches: Sequence[Batch], masks_K: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        inputs_K, dim = _together([batch.inputs for batch in batches])
        targets_K, dim_of_targets = _together([batch.targets for batch in batches])
        task, model, met = self._first.task, self._first.model, self._drops_of(batches[0])
        smooth = self._smoothing_K

        def one(
            weights: dict[str, Tensor],
            buffers: dict[str, Tensor],
            smoothing: Tensor | None,
            masks: Sequence[Tensor],
            inputs: Tensor,
            targets: Tensor,
        ) -> tuple[Tensor, Tensor]:
            def called(x: Tensor) -> Any:
                with Replaced(masks) as replaced:
                    outputs = functional_call(model, (weights, buffers), (x,))
                met[:] = replaced.met
                return outputs

            if smoothing is not None:
                self._criterion.label_smoothing = smoothing
            batch = Batch(inputs, targets)
            with self._device.autocast():
                loss, outputs = task.loss(called, batch)  # type: ignore[arg-type]
            return loss, task.tally(loss, outputs.detach(), batch)

        dims = (0, 0, None if smooth is None else 0, 0, dim, dim_of_targets)
        before = getattr(self._criterion, "label_smoothing", None)
        try:
            pair: tuple[Tensor, Tensor] = torch.vmap(one, dims)(
                self._weights, self._buffers, smooth, list(masks_K), inputs_K, targets_K
            )
        finally:
            if smooth is not None:
                self._criterion.label_smoothing = before
        return pair

    def _drops_of(self, batch: Batch) -> list[Drop]:
        return self._drops.setdefault((batch.inputs.shape, self._first.model.training), [])

    def _masks(self, pieces: Sequence[Sequence[Batch]]) -> list[list[Tensor]]:
        """The masks (K, ...) of each call of dropout in each piece: every job's drawn in the order of its own run."""
        for piece in pieces:
            if (piece[0].inputs.shape, True) not in self._drops:  # calls that are not known are met by trying
                before = [buffer.clone() for buffer in self._buffers.values()]
                with torch.no_grad():
                    self._losses(piece, ())
                    for buffer, value in zip(self._buffers.values(), before, strict=True):
                        buffer.copy_(value)
        calls = [self._drops_of(piece[0]) for piece in pieces]
        if not any(calls):
            return [[] for _ in pieces]
        drawn = []
        for job in self.jobs:
            job.device.seed(job.seed, "step", job.step)
            drawn.append([[mask(drop, self._device.torch_device) for drop in drops] for drops in calls])
        return [
            [torch.stack([of[piece][call] for of in drawn]) for call in range(len(drops))]
            for piece, drops in enumerate(calls)
        ]

    def _stacked_steps(self) -> list[tuple[list[str], Descent]]:
        """Steps for all jobs at once, each with the names of its parameters; none where each job takes its own."""
        size = sum(weight[0].numel() for weight in self._weights.values())
        cached = self._device.torch_device.type == "cpu" and size > _IN_CACHE  # a job at a time then stays in the cache
        if cached or not all(len(job.optimizers) == 1 and has_stacked_step(job.optimizers[0]) for job in self.jobs):
            return []
        names: dict[tuple[int, ...], list[str]] = {}
        groups: dict[tuple[int, ...], list[Any]] = {}
        owners = [{id(p): group for group in job.groups for p in group["params"]} for job in self.jobs]
        for name in self._trained:
            of = [owner[id(own[name])] for owner, own in zip(owners, self._own, strict=True)]
            key = tuple(map(id, of))
            groups[key] = of
            names.setdefault(key, []).append(name)
        return [
            (
                members,
                Descent(
                    groups[key],
                    [self._weights[name].detach() for name in members],
                    [
                        [job.optimizers[0].state[own[name]] for job, own in zip(self.jobs, self._own, strict=True)]
                        for name in members
                    ],
                ),
            )
            for key, members in names.items()
        ]

    def _descend(self, gradients: Mapping[str, Tensor | None], diverged: Sequence[int]) -> None:
        """Take the gradients, and drop them; rows that have diverged stay as they were."""
        with torch.no_grad():
            live = [
                tensor for row in diverged for group in self.jobs[row].tensors().values() for tensor in group.values()
            ]
            before = [tensor.clone() for tensor in live]
            for names, descent in self._descents:
                descent([gradients[name] for name in names])
            for tensor, value in zip(live, before, strict=True):
                tensor.copy_(value)
        if not self._descents:
            for row, (job, own) in enumerate(zip(self.jobs, self._own, strict=True)):
                if row not in diverged:
                    for name, gradient in gradients.items():
                        own[name].grad = None if gradient is None else gradient[row]
                    job.descend()
        self.drop_gradients()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The jobs' tensors of one name as one; each becomes a view of its row."""
    stack = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, row in zip(tensors, stack, strict=True):
        tensor.data = row
    return stack


def _together(tensors: Sequence[Tensor]) -> tuple[Tensor, int | None]:
    """What jobs take in, and the dimension that tells them apart; none where all take the same."""
    if all(tensor is tensors[0] for tensor in tensors):
        return tensors[0], None
    return torch.stack([*tensors]), 0
