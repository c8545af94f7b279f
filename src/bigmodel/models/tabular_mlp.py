"""A multilayer perceptron over the columns of a table: numbers as they are, categories through embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, PositiveInt, ProperFraction
from bigmodel.models.mlp import MLP

__all__ = ["TabularMLP"]


class TabularMLP(nn.Module):
    """(N, F) to (N, outputs). F: standardised numbers, then for each category a whole number below its cardinality.

    Category 0, which no training row has, is the zero vector and stays so. An embedding has `embedding` values, or as
    many as the category has, if those are fewer (entity embeddings: Guo & Berkhahn 2016, arXiv:1604.06737). Without
    hidden layers this is linear in numbers and categories.
    """

    def __init__(
        self,
        num_numbers: NonNegativeInt,
        cardinalities: Sequence[PositiveInt],
        outputs: PositiveInt,
        embedding: PositiveInt = 8,
        hidden: Sequence[PositiveInt] = (128, 64),
        dropout: ProperFraction = 0.2,
    ) -> None:
        super().__init__()
        self._numbers = num_numbers
        self.embeddings = nn.ModuleList(nn.Embedding(n, min(embedding, n), padding_idx=0) for n in cardinalities)
        width = num_numbers + sum(min(embedding, n) for n in cardinalities)
        self.mlp = MLP([width], outputs, hidden, dropout)

    def forward(self, x_NF: Tensor) -> Tensor:
        numbers_NK, codes_NC = x_NF[:, : self._numbers], x_NF[:, self._numbers :].long()
        embedded = [embed(codes_NC[:, place]) for place, embed in enumerate(self.embeddings)]
        return self.mlp(torch.cat([numbers_NK, *embedded], 1))  # type: ignore[no-any-return]
