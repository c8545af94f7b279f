"""Permuted language modelling: predict tokens in a random order, each from those before it (Yang et al. 2019,
arXiv:1906.08237).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigmodel.constraints import Fraction
from bigmodel.padding import lengths
from bigmodel.tasks.masked_language_modelling import MaskedPrediction, draw_uniform

__all__ = ["PermutedLanguageModelling"]


class PermutedLanguageModelling(MaskedPrediction):
    """Predict the last tokens of a random order: `predict_fraction` of each text (the paper's 1/K), at least one token.

    Inputs (N, T) int64, -1 = padding; the model is called as `XLNet` documents. The batch's targets are not used.
    Tokens earlier in the order are all visible at once. The order is drawn as `MaskedLanguageModelling` draws its mask.
    """

    def __init__(self, predict_fraction: Fraction = 0.1667) -> None:
        self._fraction = predict_fraction

    def predict_hidden(self, model: nn.Module, tokens_NT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ranks_NT, asked_NM, targets_NM = self.permute_order(tokens_NT, model.training)
        return model(tokens_NT, ranks_NT, asked_NM), asked_NM, targets_NM

    def permute_order(self, tokens_NT: Tensor, training: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return ranks (N, T), 0 where a token is visible and from 1 on in the order of prediction; the target
        positions (N, M), the last in the order first; and the tokens there (N, M), -1 where a text has fewer.
        """
        drawn_NT = draw_uniform(1, tokens_NT, training)[0].masked_fill(tokens_NT < 0, -1)
        most = max(1, int(self._fraction * tokens_NT.shape[1]))
        asked_NM = drawn_NT.topk(most, 1).indices
        counts_N1 = (self._fraction * lengths(tokens_NT)).long().clamp(min=1)[:, None]
        numbers_NM = (counts_N1 - torch.arange(most, device=tokens_NT.device)).clamp(min=0)
        ranks_NT = torch.zeros_like(tokens_NT).scatter(1, asked_NM, numbers_NM)
        return ranks_NT, asked_NM, tokens_NT.gather(1, asked_NM).masked_fill(numbers_NM == 0, -1)
