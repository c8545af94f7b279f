"""Edit distance of sequences, in batches."""

from __future__ import annotations

import torch
from torch import Tensor


def edit_distances(found_NT: Tensor, true_NU: Tensor) -> Tensor:
    """Return the number of insertions, deletions and substitutions from one sequence to the other, int64 (N,)
    (Levenshtein 1965).

    Computed row by row over `true`; within a row, insertions are a running minimum, so all columns are found at once.
    """
    count, length = found_NT.shape
    column_V = torch.arange(length + 1, device=found_NT.device)
    row_NV = column_V.expand(count, -1)
    for number in range(true_NU.shape[1]):
        true_N1 = true_NU[:, number, None]
        replaced_NT = row_NV[:, :-1] + (found_NT != true_N1)
        least_NV = torch.cat([row_NV[:, :1] + 1, torch.minimum(replaced_NT, row_NV[:, 1:] + 1)], dim=1)
        next_NV = (least_NV - column_V).cummin(1).values + column_V
        row_NV = torch.where(true_N1 >= 0, next_NV, row_NV)
    return row_NV.gather(1, (found_NT >= 0).sum(1, keepdim=True))[:, 0]
