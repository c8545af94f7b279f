"""Connectionist temporal classification: a text for each clip, without alignment of frames and characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import omit, standard_specs
from bigmodel.models.decoding.ctc import beam_search, greedy_decode
from bigmodel.padding import lengths, pad
from bigmodel.tasks.metrics.edit_distance import edit_distances
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["CTC"]


class CTC:
    """CTC loss and error rates (Graves et al. 2006).

    Outputs (N, T, 1 + characters), class 0 the blank; targets (N, U), padded with -1: 1 is the first of `characters`.
    The loss is in nats per character, the mean over clips.

    Errors are edit distances over true lengths, both summed over all clips: exact for any batching. They come from
    greedy decoding; with a `beam`, an evaluation adds `beam_word_error`, of the likeliest text that prefix beam search
    of that width finds.
    """

    metric_names = ("loss", "character_error", "word_error")
    metric_specs = standard_specs(*metric_names, "beam_word_error")

    def __init__(self, characters: str, beam: PositiveInt | None = None) -> None:
        self._characters = characters
        self._beam = beam
        self.metric_names = (*self.metric_names, *(("beam_word_error",) if beam else ()))
        self.metric_specs = omit(self.metric_specs, () if beam else ("beam_word_error",))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the loss. A clip with too few frames for its text has an infinite loss, which ends the run with its
        index.

        torch reads the lengths on the host, so this waits for a GPU.
        """
        logits_NTC = model(batch.inputs)
        if logits_NTC.is_meta:  # torch's loss reads values, which a meta tensor has not; it costs little
            return logits_NTC.sum(), logits_NTC
        log_probs_TNC = logits_NTC.float().log_softmax(2).transpose(0, 1)
        frames_N = torch.full_like(batch.targets[:, 0], len(log_probs_TNC))
        characters_N = lengths(batch.targets)
        return F.ctc_loss(log_probs_TNC, batch.targets.clamp(min=1), frames_N, characters_N), logits_NTC

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums over clips; `loss_denominator` counts clips, `character_errors` are of the greedy decoding."""
        return {
            **loss_sums(loss, len(batch.targets)),
            "characters": lengths(batch.targets).sum(),
            "character_errors": edit_distances(greedy_decode(outputs), batch.targets).sum(),
        }

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {
            "loss": mean_loss(sums),
            "character_error": float(sums["character_errors"]) / float(sums["characters"]),
        }

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `train_sums`, and `words` with their errors, also of beam search. Words are compared on the CPU."""
        true = [to_text(row, self._characters).split() for row in batch.targets.tolist()]
        found = [to_text(row, self._characters).split() for row in greedy_decode(outputs).tolist()]
        counts = {"words": sum(map(len, true)), "word_errors": _word_errors(found, true)}
        if self._beam:
            texts = (beam_search(clip_TC, self._beam)[0][0] for clip_TC in outputs.log_softmax(2).cpu())
            found = [to_text(row, self._characters).split() for row in texts]
            counts["beam_word_errors"] = _word_errors(found, true)
        words = {name: torch.tensor(count, device=loss.device) for name, count in counts.items()}
        return self.train_sums(loss, outputs, batch) | words

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        words = float(sums["words"])
        beam = {"beam_word_error": float(sums["beam_word_errors"]) / words} if self._beam else {}
        return self.train_metrics(sums) | {"word_error": float(sums["word_errors"]) / words} | beam


def to_text(row: Sequence[int], characters: str) -> str:
    """Return the text of class indices, as `models.decoding.ctc` gives them."""
    return "".join(characters[number - 1] for number in row if number > 0)


def _word_errors(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> int:
    numbers: dict[str, int] = {}
    rows = [
        pad([torch.tensor([numbers.setdefault(word, len(numbers)) for word in words] or [-1]) for words in texts])
        for texts in (found, true)
    ]
    return int(edit_distances(*rows).sum())
