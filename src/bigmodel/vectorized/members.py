"""Jobs that are run by the ordinary code, each in a thread, while what they compute is computed for all at once.

They need not stand at the same step: who is behind goes on first, and whoever has diverged, stopped early or ended is
no longer waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.job import Job
from bigmodel.vectorized.stack import Stack
from bigmodel.vectorized.turns import Question, Turns


class Member(Job):
    """A job that has its updates, and its model's outputs in an evaluation, from the others' conductor."""

    def __init__(self, ensemble: Ensemble, **parts: Any) -> None:
        super().__init__(**parts)
        self._ensemble = ensemble
        self._asking = _Asking(self)
        ensemble.members.append(self)

    def update(self, batch: Batch) -> None:
        """As `Job.update`."""
        self._ensemble.ask(self, batch, (batch.inputs.shape, batch.targets.shape))

    @property
    def evaluated(self) -> nn.Module:
        """What computes with the weights that count. An average's outputs are computed for each job by itself."""
        return super().evaluated if self.averages else self._asking

    def outputs(self, inputs: Tensor) -> Tensor:
        """The model's outputs, computed together with others'."""
        outputs: Tensor = self._ensemble.ask(self, inputs, (inputs.shape,))
        return outputs


class _Asking(nn.Module):
    """Stands for a member's model; its mode is the model's."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.model = member.model
        self._outputs = member.outputs

    def forward(self, inputs: Tensor) -> Tensor:
        return self._outputs(inputs)


class Ensemble:
    """All members, and the stack of those that go on together."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.turns = Turns(self._answer)
        self._stack: Stack | None = None

    def ask(self, member: Member, content: Batch | Tensor, shapes: tuple[torch.Size, ...]) -> Any:
        """An update on a batch, or outputs for inputs."""
        kind = (type(content), *shapes)
        return self.turns.ask(Question(member.step, kind, member, content))

    def _answer(self, questions: Sequence[Question]) -> None:
        questions = sorted(questions, key=lambda question: self.members.index(question.asker))
        jobs, contents = [question.asker for question in questions], [question.content for question in questions]
        try:
            stack = self._stack_of(jobs)
            if isinstance(contents[0], Batch):
                answers: Sequence[Any] = stack.update(contents)
            else:
                with torch.inference_mode(), jobs[0].device.autocast():
                    answers = stack.outputs(contents).unbind()
        except Exception as error:  # each tells it as its own
            answers = [error] * len(questions)
        for question, answer in zip(questions, answers, strict=True):
            question.answer = answer

    def _stack_of(self, jobs: Sequence[Member]) -> Stack:
        if self._stack is None or self._stack.jobs != jobs:
            self._stack = Stack(jobs)
        return self._stack
