"""DPO computes the loss of its paper; the reference stays what the model was, also after a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.datasets.text.preferences import preferences
from bigmodel.datasets.text.tokenizers import load_vocabulary
from bigmodel.errors import DataError
from bigmodel.inference.predictor import load
from bigmodel.interfaces import Batch
from bigmodel.models.gpt import GPT
from bigmodel.models.weights.lora import LoRA
from bigmodel.models.weights.reference import keep_reference, plain_weights, reference_outputs, reference_weights
from bigmodel.runs.checkpoint import load_newest
from bigmodel.tasks.preference import Preference
from conftest import Answer, call, fingerprint, is_quiet, records
from several_ranks import trained
from small_chat import WORDS, chat_folder
from test_resume import StopAt, _interrupted, _train


class _Unigrams(nn.Module):
    """Logits (N, T, V) that depend on no input."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, tokens_NT: Tensor) -> Tensor:
        return self.logits.expand(*tokens_NT.shape, -1)


def _pair() -> Batch:
    """Chosen: tokens 0 and 1. Rejected: 1, 1 and 2. The first target of both is of the prompt."""
    targets = torch.tensor([[[-1, -1], [0, 1], [1, 1], [-1, 2]]])
    return Batch(targets.clamp(min=0), targets)


def test_the_loss_is_that_of_the_paper() -> None:
    model = _Unigrams([0.5, 0.25, 0.25])
    assert keep_reference(model).startswith("reference: a frozen copy")
    with torch.no_grad():
        model.logits.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
    task, batch = Preference(beta=0.5), _pair()
    loss, rewards_N2 = task.loss(model, batch)
    chosen = 0.5 * (math.log(0.7 * 0.2) - math.log(0.5 * 0.25))
    rejected = 0.5 * (math.log(0.2 * 0.2 * 0.1) - math.log(0.25 * 0.25 * 0.25))
    assert rewards_N2.tolist() == [pytest.approx([chosen, rejected])]
    assert loss.item() == pytest.approx(math.log(1 + math.exp(rejected - chosen)))
    found = task.eval_metrics(task.eval_sums(loss.detach(), rewards_N2.detach(), batch))
    margin = pytest.approx(chosen - rejected)
    assert found == {"loss": loss.item(), "reward_accuracy": 1.0, "reward_margin": margin} | {
        "chosen_reward": pytest.approx(chosen)
    }
    loss.backward()
    assert model.logits.grad is not None
    assert [name for name, one in model.named_parameters() if one.requires_grad] == ["logits"]


def _gpt(**more: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(7, 8, layers=1, heads=2, width=8, dropout=0.5, **more)


@pytest.mark.parametrize("also", [None, "norm.*"])
@pytest.mark.parametrize("rank", [0, 2])
def test_the_reference_is_the_model_as_it_was(rank: int, also: str | None) -> None:
    model = _gpt()
    tokens = torch.randint(7, (2, 5))
    before = model.eval()(tokens)
    if rank:
        LoRA(rank, also_train=also).adapt(model)
    said = keep_reference(model)
    assert said.startswith("reference: the model without" if rank and not also else "reference: a frozen copy")
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    model.train()
    torch.testing.assert_close(reference_outputs(model, tokens), before)
    assert model.training
    assert model.blocks[0].training
    plain = _gpt()
    plain.load_state_dict(reference_weights(model.state_dict()))
    torch.testing.assert_close(plain.eval()(tokens), before)
    plain.load_state_dict(plain_weights(model.state_dict()))
    torch.testing.assert_close(plain(tokens), model.eval()(tokens), atol=1e-4, rtol=1e-4)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    return chat_folder(tmp_path_factory.mktemp("weights") / "m")


def test_every_shape_of_a_pair_is_the_same(weights: Path) -> None:
    asked, good, bad = _turn("user", "ab"), _turn("assistant", "c"), _turn("assistant", "def")
    shapes: list[dict[str, Any]] = [
        {"prompt": "ab", "chosen": "c", "rejected": "def"},
        {"prompt": [asked], "chosen": [good], "rejected": [bad]},
        {"prompt": [asked], "chosen": good, "rejected": bad},
        {"chosen": [asked, good], "rejected": [asked, bad]},
        {"prompt": "ab", "chosen": [asked, good], "rejected": [asked, bad]},
        {"conversations": [{"from": "human", "value": "ab"}]}
        | {"chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "def"}},
    ]
    file = weights.parent / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, shapes)))
    inputs, targets = preferences(str(file), str(weights), 32, 0.0, vocab_size=23).splits["train"]
    assert isinstance(inputs, Tensor)
    assert isinstance(targets, Tensor)
    assert all(row.equal(inputs[0]) for row in inputs)
    assert all(row.equal(targets[0]) for row in targets)
    tokenizer = load_vocabulary(weights, 23)[0]  # type: ignore[index]
    whole = [tokenizer.encode(f"uab<|end|>a{one}<|end|>").tolist() for one in ("c", "def")]
    assert [inputs[0, :, n][inputs[0, :, n] >= 0].tolist() for n in (0, 1)] == [one[:-1] for one in whole]
    assert targets[0].T.tolist() == [[-1, -1, -1, 2, 20, -1, -1], [-1, -1, -1, 3, 4, 5, 20]]


def test_earlier_answers_are_no_targets(weights: Path) -> None:
    begun = [_turn("user", "a"), _turn("assistant", "b"), _turn("user", "c")]
    file = weights.parent / "q.jsonl"
    file.write_text(json.dumps({"prompt": begun, "chosen": "d", "rejected": "e"}))
    _, targets = preferences(str(file), str(weights), 32, 0.0, vocab_size=23).splits["train"]
    assert isinstance(targets, Tensor)
    assert [row[row >= 0].tolist() for row in targets[0].T] == [[3, 20], [4, 20]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[]", "must hold chosen and rejected"),
        ({"prompt": "a", "chosen": "b"}, "must hold chosen and rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected: message 1 (assistant): is empty"),
        ({"prompt": "a", "chosen": 1, "rejected": "b"}, "chosen: must be a text or messages"),
        ({"chosen": "a", "rejected": "b"}, "chosen: message 1 (assistant): out of order"),
        ({"prompt": "a", "chosen": "b", "rejected": "c" * 40}, "has 44 tokens, more than context=32"),
        (
            {"prompt": "a", "chosen": [_turn("user", "b"), _turn("assistant", "c")], "rejected": "d"},
            "chosen: does not hold the prompt",
        ),
        (
            {"chosen": [_turn("user", "a"), _turn("assistant", "c")]}
            | {"rejected": [_turn("user", "b"), _turn("assistant", "c")]},
            "chosen and rejected must differ in their last answer alone",
        ),
    ],
)
def test_a_broken_pair_is_named(line: object, why: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    good = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
    file.write_text(f"{good}\n{line if isinstance(line, str) else json.dumps(line)}\n")
    with pytest.raises(DataError) as caught:
        preferences(str(file), str(weights), 32, 0.0)
    assert caught.value.lines[0].startswith(f"{file}:2: {why}")
    found = preferences(str(file), str(weights), 32, 0.0, broken="skip")
    assert len(found.splits["train"][0]) == 1
    assert found.notes[0].startswith(f"warning: {file}: 1 bad row skipped (dataset.broken=skip); the first: {file}:2: ")


def _words(weights: Path, *more: str) -> tuple[str, ...]:
    """Prefer the answer b, whatever is asked."""
    file = weights.parent / "train.jsonl"
    lines = [{"prompt": one, "chosen": "b", "rejected": other} for one, other in zip(WORDS, WORDS[3:], strict=False)]
    file.write_text("\n".join(map(json.dumps, lines)))
    words = ("dataset=preferences", f"dataset.path={file}", "dataset.context=32", "batch_size=6", "device=cpu")
    words += ("device.threads=1", "epochs=4", "optim.lr=0.02", "listeners=[console]", "task.beta=0.5")
    return (*words, f"init.from={weights}", *more)


@pytest.mark.parametrize("lora", [("init.lora.rank=2",), (), ("ema=0.5",)], ids=["lora", "copy", "average"])
def test_a_run_prefers_and_resumes_bitwise(
    lora: tuple[str, ...], weights: Path, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = cli(*_words(weights, *lora))
    assert answer.code == 0, answer.err
    assert f"reference: {'the model without' if 'lora' in str(lora) else 'a frozen copy'}" in answer.out
    held_out = [line for line in records(answer.run) if line.get("split") == "val"]
    assert held_out[-1]["loss"] < 0.8 * math.log(2)
    assert held_out[-1]["reward_accuracy"] == 1.0
    run = _interrupted(answer.run, tmp_path / "run", 5)
    _train(run, StopAt(-1), resume=True)
    assert (fingerprint(run), records(run)) == (fingerprint(answer.run), records(answer.run))
    newest, _ = load_newest(run / "checkpoints")
    assert newest is not None
    assert newest.state["step"] == 12
    begun = call(*_words(weights, "epochs=0"), cwd=tmp_path)
    before, after = load(str(begun.run)).model.state_dict(), reference_weights(newest.weights)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    again = call(f"run={run}", "split=val", "format=json", "device=cpu", cwd=tmp_path, verb="evaluate")
    assert again.code == 0, again.err
    best = json.loads((run / "summary.json").read_text())["best"]["value"]
    assert json.loads(again.out)["loss"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("lora", [("init.lora.rank=2",), ()], ids=["lora", "copy"])
def test_two_ranks_have_the_bits_of_one(lora: tuple[str, ...], weights: Path, tmp_path: Path) -> None:
    words = _words(weights, "pieces=2", *lora)
    one, two = (trained(tmp_path / f"ranks{count}", *words, f"device.count={count}") for count in (1, 2))
    assert (fingerprint(one), records(one)) == (fingerprint(two), records(two))


def test_a_tuned_run_begins_the_next(weights: Path, cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = cli(*_words(weights))
    words = [one for one in _words(weights, "epochs=1") if not one.startswith("init.from")]
    vocabulary = (f"dataset.vocabulary={weights}", "dataset.vocab_size=23")
    (here := tmp_path / "next").mkdir()
    model = json.loads(json.dumps(dict(load(str(answer.run)).config["model"])))
    keys = [f"model.{key}={json.dumps(value)}" for key, value in model.items() if key not in ("_target_", "vocab_size")]
    following = cli(*words, *vocabulary, *keys, f"init.from={answer.run}", cwd=here)
    assert following.code == 0, following.err
    assert "loaded 23 of 23 tensors" in following.out
    talked = call(f"run={following.run}", "chat=true", "input=a", "device=cpu", cwd=tmp_path, verb="predict")
    assert talked.code == 0, talked.err


def test_conversations_are_no_pairs(weights: Path, cli: Callable[..., Answer]) -> None:
    words = [one for one in _words(weights, "dry_run=true", "task=instruction_tuning") if "beta" not in one]
    (line,) = is_quiet(cli(*words), code=2)
    assert line
