"""Metrics of translations: chrF by hand, decoding from the source alone, sums that no batching changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.tasks.metrics.chrf import SUMS, chrf, count_ngrams
from bigmodel.tasks.translation import Translation
from named_sums import added


@pytest.mark.parametrize(
    ("found", "true", "score"),
    [
        (["abc d"], ["a bcd"], 1.0),  # blanks do not count
        (["abc"], ["xyz"], 0.0),
        ([""], ["a"], 0.0),
        (["ab"], ["abc"], 7 / 11),  # precision 1, recall (2/3 + 1/2) / 2, which counts twice
        (["aaa"], ["a"], 5 / 7),  # precision 1/3, recall 1
        (["ab", "q"], ["abc", "q"], 25 / 37),  # of both precision 1, recall (3/4 + 1/2) / 2
    ],
)
def test_chrf_is_what_one_finds_by_hand(found: list[str], true: list[str], score: float) -> None:
    alone = [count_ngrams([one], [other]) for one, other in zip(found, true, strict=True)]
    sums = count_ngrams(found, true)
    assert sums == [sum(column) for column in zip(*alone, strict=True)]
    assert (len(sums), chrf(sums)) == (SUMS, pytest.approx(score))


class Echo(nn.Module):
    """Says the source again, whatever the target so far; token 3 is the end."""

    context, end = 4, 3

    def forward(self, tokens_NX: Tensor) -> Tensor:
        return self.decode(tokens_NX[:, 4:], self.encode(tokens_NX[:, :4]))

    def encode(self, source_NS: Tensor) -> Echo.Memory:
        return self.Memory(source_NS)

    class Memory:
        def __init__(self, source_NS: Tensor) -> None:
            self.source_NS = source_NS

        def repeat(self, count: int) -> Echo.Memory:
            return Echo.Memory(self.source_NS.repeat_interleave(count, 0))

    def decode(self, target_NT: Tensor, memory: Memory, cache: list[int] | None = None) -> Tensor:
        said_NT = torch.nn.functional.pad(memory.source_NS, (0, 1), value=-1)
        said_NT = said_NT.masked_fill(said_NT < 0, 3)
        first = 0 if cache is None else cache[0]
        if cache is not None:
            cache[0] += target_NT.shape[1]
        return 9.0 * torch.nn.functional.one_hot(said_NT[:, first : first + target_NT.shape[1]], 4)

    def cache(self, count: int) -> list[int]:
        return [0]


def test_an_evaluation_decodes_from_the_source_alone() -> None:
    task = Translation("char", characters="abc")
    source_NS = torch.tensor([[0, 1, 2, -1], [0, 0, -1, -1], [2, -1, -1, -1], [1, 1, 1, 1]])
    begun_NT = torch.full((4, 5), 2)  # were they looked at, it would be noticed
    targets_NT = torch.tensor([[0, 1, 2, 3, -1], [0, 0, 3, -1, -1], [0, 3, -1, -1, -1], [1, 1, 1, 3, -1]])
    batch, model = Batch(torch.cat([source_NS, begun_NT], dim=1), targets_NT), Echo()
    loss, outputs = task.loss(model, batch)
    assert outputs.shape == (4, 1, 5)  # in training nothing is decoded
    assert task.train_metrics(task.train_sums(loss, outputs, batch))["token_accuracy"] == pytest.approx(11 / 13)
    model.eval()
    reports = []
    for pieces in (1, 2, 4):
        sums = [task.eval_sums(*task.loss(model, part), part) for part in batch.microbatches(pieces)]
        reports.append(task.eval_metrics(added(sums)))
    assert reports[1:] == [pytest.approx(reports[0])] * 2
    assert reports[0]["exact_match"] == 0.5
    assert reports[0]["chrf"] == pytest.approx(
        chrf(count_ngrams(["abc", "aa", "c", "bbbb"], ["abc", "aa", "a", "bbb"]))
    )
    assert set(reports[0]) == set(task.metric_names)
