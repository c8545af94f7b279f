"""Multilayer perceptron over table columns: numbers directly, categories through embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, PositiveInt, ProperFraction
from bigmodel.models.mlp import MLP

__all__ = ["TabularMLP"]


class TabularMLP(nn.Module):
    """(N, F) to (N, outputs). F: standardized numbers, then one category index per categorical column.

    Index 0, which no training row has, stays the zero vector. An embedding has `embedding` values, or the column's
    cardinality if that is lower (entity embeddings: Guo & Berkhahn 2016, arXiv:1604.06737). Without hidden layers the
    model is linear in numbers and categories.
    """

    def __init__(
        self,
        num_numeric: NonNegativeInt,
        cardinalities: Sequence[PositiveInt],
        outputs: PositiveInt,
        embedding: PositiveInt = 8,
        hidden: Sequence[PositiveInt] = (128, 64),
        dropout: ProperFraction = 0.2,
    ) -> None:
        super().__init__()
        self._num_numeric = num_numeric
        self.embeddings = nn.ModuleList(nn.Embedding(n, min(embedding, n), padding_idx=0) for n in cardinalities)
        width = num_numeric + sum(min(embedding, n) for n in cardinalities)
        self.mlp = MLP([width], outputs, hidden, dropout)

    def forward(self, x_NF: Tensor) -> Tensor:
        numbers_NK = x_NF[:, : self._num_numeric]
        indices_NC = x_NF[:, self._num_numeric :].long()
        embedded = [embed(indices_NC[:, column]) for column, embed in enumerate(self.embeddings)]
        return self.mlp(torch.cat([numbers_NK, *embedded], 1))  # type: ignore[no-any-return]
