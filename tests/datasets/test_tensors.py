"""Samples of any shape from memory: each once an epoch, in an order that is a function of the seed and the step."""

from __future__ import annotations

import pytest
import torch

from bigmodel.datasets.loading.tensors import TensorDataset, fingerprint_tensors
from bigmodel.errors import DataError
from bigmodel.interfaces import LoaderOptions
from bigmodel.padding import lengths, pad, valid_mask

CPU = torch.device("cpu")


def _dataset(size: int = 25, val_fraction: float = 0.2) -> TensorDataset:
    numbers = torch.arange(size)
    splits = {"train": (numbers.float()[:, None].expand(-1, 3), numbers), "test": (torch.zeros(4, 3), numbers[:4])}
    return TensorDataset(splits, {"num_inputs": 3}, "3 columns", {"kind": "x.Y"}, "none", val_fraction)


def _numbers(dataset: TensorDataset, **how: object) -> list[list[int]]:
    data = dataset.loader(LoaderOptions(CPU, **{"batch_size": 6, "seed": 1} | how))
    return [batch.targets.tolist() for batch in data.train_batches(0, 2 * data.steps_per_epoch)]


def test_an_epoch_holds_every_sample_once_and_no_held_out_one() -> None:
    data = _dataset().loader(LoaderOptions(CPU, 6, seed=1))
    assert data.splits == {"train": 20, "val": 5, "test": 4}
    held = [number for batch in data.eval_batches("val") for number in batch.targets.tolist()]
    for epoch in (range(4), range(4, 8)):
        batches = list(data.train_batches(epoch[0], epoch[-1] + 1))
        assert sorted([*torch.cat([batch.targets for batch in batches]).tolist(), *held]) == list(range(25))
        for batch in batches:
            assert batch.sample_ids is not None
            assert batch.inputs[:, 0].equal(batch.targets.float())
            assert batch.sample_ids.equal(batch.targets)
    assert [len(batch.targets) for batch in data.eval_batches("test")] == [4]


def test_order_follows_from_seed_and_step_alone() -> None:
    whole = _numbers(_dataset())
    data = _dataset().loader(LoaderOptions(CPU, 6, seed=1))
    assert [batch.targets.tolist() for batch in data.train_batches(3, 8)] == whole[3:8]
    assert _numbers(_dataset(), resident_bytes=0) == whole
    assert _numbers(_dataset(), seed=2) != whole
    assert len(_numbers(_dataset(), limit_batches=2)) == 4
    assert len({tuple(batch) for batch in _numbers(_dataset(), overfit_batch=True)}) == 1
    with pytest.raises(DataError, match="is left to train on"):
        _dataset(val_fraction=0.99).loader(LoaderOptions(CPU, 1, seed=0))


def test_padding_tells_the_lengths() -> None:
    words = [torch.tensor([3, 0, 5]), torch.tensor([1])]
    assert pad(words).tolist() == [[3, 0, 5], [1, -1, -1]]
    waves = pad([torch.zeros(2, 4), torch.ones(5, 4)], length=4)
    assert lengths(pad(words)).tolist() == [3, 1]
    assert valid_mask(waves).tolist() == [[True, True, False, False], [True] * 4]


def test_a_fingerprint_differs_by_value_and_shape() -> None:
    one = torch.arange(6)
    assert fingerprint_tensors([one]) == fingerprint_tensors([one.clone()])
    assert len({fingerprint_tensors([x]) for x in (one, one.view(2, 3), one + 1, one.int())}) == 4
