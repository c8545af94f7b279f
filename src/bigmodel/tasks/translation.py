"""Translation: loss of the target tokens, and quality of what is decoded from the source alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.datasets.text.tokenizers import make_tokenizer
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec, standard_specs
from bigmodel.models.decoding.seq2seq_search import EncoderDecoder, beam_search
from bigmodel.tasks.metrics.chrf import chrf, count_ngrams
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["Translation"]


class Translation:
    """Translate a source text: inputs (N, context + T), the source and the target so far; targets (N, T), -1 = none.

    The loss is the mean cross-entropy of a target token, in nats, and `token_accuracy` is of the likeliest next token:
    both are given the true tokens before it. An evaluation adds greedy decoding from the source alone: `exact_match` is
    the fraction of texts without any mistake, `chrf` see `tasks.metrics.chrf`.
    """

    metric_names = ("loss", "token_accuracy", "exact_match", "chrf")
    metric_specs = standard_specs(*metric_names) | {"loss": MetricSpec("min", "nats/token")}

    def __init__(
        self,
        tokenizer: Literal["byte", "char", "bpe"],
        vocabulary: str | None = None,
        characters: str | None = None,
    ) -> None:
        self._tokenizer = make_tokenizer(tokenizer, vocabulary, characters).tokenizer

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss, and in place of the outputs the likeliest tokens (N, 1, T), in evaluation also the decoded
        ones (N, 2, T).
        """
        if isinstance(model, nn.Module) and not hasattr(model, "encode"):
            raise TypeError("translation needs an encoder-decoder model, as model=seq2seq")
        logits_NTV = model(batch.inputs)
        loss = F.cross_entropy(logits_NTV.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=-1)
        said = [logits_NTV.argmax(2)]
        if not model.training:
            decoder = cast(EncoderDecoder, model)
            found_NT = beam_search(decoder, batch.inputs[:, : decoder.context], 1)[0][:, 0]
            said.append(F.pad(found_NT, (0, batch.targets.shape[1] - found_NT.shape[1]), value=-1))
        return loss, torch.stack(said, dim=1)

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums over tokens; `loss_denominator` counts tokens."""
        count = (batch.targets >= 0).sum().to(loss.dtype)
        return loss_sums(loss, count) | {"correct": (outputs[:, 0] == batch.targets).sum()}

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = max(1.0, float(sums["loss_denominator"]))
        return {"loss": mean_loss(sums), "token_accuracy": float(sums["correct"]) / count}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `train_sums`, `texts`, `exact` ones, and the n-gram counts of chrF. Texts are compared on the CPU."""
        found, true = self._texts(outputs[:, 1]), self._texts(batch.targets)
        exact = sum(one == other for one, other in zip(found, true, strict=True))
        return self.train_sums(loss, outputs, batch) | {
            "texts": loss.new_tensor(len(true)),
            "exact": loss.new_tensor(exact),
            "ngrams": loss.new_tensor(count_ngrams(found, true)),
        }

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        exact = float(sums["exact"]) / float(sums["texts"])
        return {**self.train_metrics(sums), "exact_match": exact, "chrf": chrf(sums["ngrams"].tolist())}

    def _texts(self, tokens_NT: Tensor) -> list[str]:
        size = self._tokenizer.size  # the index after the vocabulary marks the end
        return [self._tokenizer.decode([n for n in row if 0 <= n < size]) for row in tokens_NT.int().tolist()]
