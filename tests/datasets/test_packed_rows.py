"""Conversations in one row learn what each would learn alone; the rows are a function of (lengths, seed, epoch)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.datasets.loading.packing import PackedDataset, Packing
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.models.gpt import GPT
from bigmodel.padding import pad
from bigmodel.tasks.language_modelling import InstructionTuning
from conftest import Answer, fingerprint, is_quiet, records
from several_ranks import trained
from small_chat import WORDS, chat_folder, turns
from test_resume import StopAt, _interrupted, _train

SIZE, ROOM = 19, 24
LLAMA: dict[str, Any] = {"layers": 2, "heads": 4, "width": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gpt2": LLAMA | {"layout": "gpt2"},
    "groups": LLAMA | {"kv_heads": 2, "qk_norm": True, "tie_embeddings": False},
    "window": LLAMA | {"window": 3},
    "window of some layers": LLAMA | {"window": 3, "full_layers": 1, "head_width": 6},
    "scaled": LLAMA | {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
}


def _sequences(count: int = 21) -> tuple[list[Tensor], list[Tensor]]:
    """Sequences of 2 to 17 tokens, the last part of each a target."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(SIZE, (3 + n * 7 % 16,), generator=generator) for n in range(count)]
    hidden = [torch.arange(len(one) - 1) < n % (len(one) - 1) for n, one in enumerate(tokens)]
    targets = [one[1:].masked_fill(mask, -1) for one, mask in zip(tokens, hidden, strict=True)]
    return [one[:-1] for one in tokens], targets


def _packed(val_fraction: float = 0.0) -> PackedDataset:
    facts: dict[str, Any] = {"properties": {}, "spec": {}, "fingerprint": ""}
    return PackedDataset.of(*_sequences(), ROOM, val_fraction, "x", **facts)


def _options(batch_size: int, **more: Any) -> LoaderOptions:
    return LoaderOptions(torch.device("cpu"), batch_size, seed=3, **more)


def _gradients(model: GPT, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    loss, _ = InstructionTuning().loss(model, batch)
    return loss, [*torch.autograd.grad(loss, [*model.parameters()], allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_are_those_of_the_sequences_alone(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(SIZE, ROOM, **MODELS[name]).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    dataset = _packed()
    (batch,) = dataset.loader(_options(batch_size=100)).eval_batches("train")
    assert len(batch.targets) < 12  # of 21 sequences
    loss, gradients = _gradients(model, batch)
    tokens, targets = _sequences()
    alone, gradients_alone = _gradients(model, Batch(pad(tokens), pad(targets)))
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(gradients, gradients_alone)
    crossing = Batch(batch.inputs[..., 0], batch.targets)
    assert abs(_gradients(model, crossing)[0] - alone) > 1e-3  # as it would be if they saw each other


def test_a_row_continues_in_the_cache() -> None:
    torch.manual_seed(0)
    model = GPT(SIZE, ROOM, **MODELS["window of some layers"], kv_heads=2).eval()
    batch = _packed().sample_batch(3)
    whole = model(batch.inputs)
    cache = model.cache(3)
    parts = [model(batch.inputs[:, :9], cache)]
    parts += [model(batch.inputs[:, n : n + 1], cache) for n in range(9, batch.inputs.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_every_sequence_comes_once_an_epoch_in_other_rows() -> None:
    dataset = _packed(val_fraction=0.2)
    tokens, _ = _sequences()
    loader = dataset.loader(_options(batch_size=2))
    kept = {tuple(tokens[n].tolist()) for n in dataset.indices["train"].tolist()}
    per_epoch = []
    for epoch in range(3):
        steps = (epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
        found = [one for batch in loader.train_batches(*steps) for one in _texts(batch.inputs)]
        assert len(found) == len(kept)
        assert {*found} == kept
        per_epoch.append(found)
    assert per_epoch[0] != per_epoch[1] != per_epoch[2]
    held_out = [one for batch in loader.eval_batches("val") for one in _texts(batch.inputs)]
    assert {*held_out} == {tuple(one.tolist()) for one in tokens} - kept
    assert loader.splits == {name: len(one) for name, one in dataset.packings.items()}


def _texts(inputs_NT2: Tensor) -> list[tuple[int, ...]]:
    """The sequences of rows, told apart by their positions."""
    found: list[list[int]] = []
    for row in inputs_NT2.tolist():
        for token, position in row:
            assert (token < 0) == (position < 0)
            found += [[]] if position == 0 else []
            if position >= 0:
                assert position == len(found[-1])
                found[-1].append(token)
    return [tuple(one) for one in found]


def test_any_step_is_read_alone_resident_or_streamed() -> None:
    dataset = _packed()
    loader = dataset.loader(_options(batch_size=3))
    steps = 3 * loader.steps_per_epoch
    whole = [*loader.train_batches(0, steps)]
    for options in (_options(3), _options(3, resident_bytes=0), _options(3, resident_bytes=0, workers=1)):
        for step in (1, steps // 2, steps - 1):
            (alone,) = dataset.loader(options).train_batches(step, step + 1)
            assert alone.inputs.equal(whole[step].inputs)
            assert alone.targets.equal(whole[step].targets)


def test_rows_are_full_as_lengths_allow() -> None:
    packing = Packing(torch.tensor([5, 3, 8, 2, 6, 8]), room=8)
    rows = sorted(sorted(row[row >= 0].tolist()) for row in packing.rows(0))
    assert rows == [[0, 1], [2], [3, 4], [5]]
    assert packing.filled == 1.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    made = tmp_path_factory.mktemp("packed")
    chat_folder(made / "m")
    lines = [turns(WORDS[n % 7 : 3 + n], WORDS[: 1 + n % 5]) for n in range(16)]
    (made / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return made


PACKED = ("dataset=conversations", "dataset.packing=true", "dataset.context=32", "device=cpu", "device.threads=1")
PACKED += ("batch_size=4", "epochs=3", "log_every=1steps", "listeners=[]")


def _words(here: Path, *more: str) -> tuple[str, ...]:
    return (*PACKED, f"dataset.path={here / 'c.jsonl'}", f"init.from={here / 'm'}", *more)


def test_the_plan_says_how_full_rows_are(cli: Callable[..., Answer], here: Path) -> None:
    answer = cli(*_words(here, "dry_run=true"))
    said = r"16 conversations, 62 tokens of answers, in rows of 32: (\d+) train \((\d+\.\d) % filled\), 1 val \("
    found = re.search(said, answer.out)
    assert found, answer.out + answer.err
    rows, filled = int(found[1]), float(found[2])
    assert rows < 14  # the conversations to train on
    assert filled > 85


def test_a_run_resumes_in_the_middle_of_packing(cli: Callable[..., Answer], here: Path, tmp_path: Path) -> None:
    answer = cli(*_words(here, "init.lora.rank=2", "ema=0.5"))
    assert answer.code == 0, answer.err
    for step in (1, 3, 4):
        run = _interrupted(answer.run, tmp_path / f"run{step}", step)
        _train(run, StopAt(-1), resume=True)
        assert (fingerprint(run), records(run)) == (fingerprint(answer.run), records(answer.run))


def test_pieces_of_rows_learn_the_same(cli: Callable[..., Answer], here: Path, tmp_path: Path) -> None:
    found = []
    for pieces in (("pieces=null",), ("pieces=4",), ("accumulate=2",)):
        (cwd := tmp_path / pieces[0]).mkdir()
        answer = cli(*_words(here, *pieces), cwd=cwd)
        assert answer.code == 0, answer.err
        found.append([line["loss"] for line in records(answer.run)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] == pytest.approx(found[2], rel=1e-4)


def test_two_ranks_have_the_bits_of_one(here: Path, tmp_path: Path) -> None:
    words = _words(here, "pieces=2", "dataset.val_fraction=0.3")
    one, two = (trained(tmp_path / f"ranks{count}", *words, f"device.count={count}") for count in (1, 2))
    assert (fingerprint(one), records(one)) == (fingerprint(two), records(two))


def test_models_that_mix_the_texts_of_a_row_are_refused(cli: Callable[..., Answer], here: Path) -> None:
    words = [one for one in _words(here, "model=xlnet", "dry_run=true") if not one.startswith("init.from")]
    (line,) = is_quiet(cli(*words, f"dataset.vocabulary={here / 'm'}"), code=2)
    assert line == "dataset.packing: XLNet does not keep the texts of a row apart; set dataset.packing=false"
