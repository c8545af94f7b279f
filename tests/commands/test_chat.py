"""From open weights to a conversation: loaded without training, kept in a run, answered by the chat template."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bigmodel.datasets.text.conversations import conversations
from bigmodel.datasets.text.published_tokenizers import read_published
from bigmodel.datasets.text.tokenizers import load_vocabulary, make_tokenizer, tokenizer_from_spec
from bigmodel.errors import DataError
from bigmodel.inference.predictor import load
from bigmodel.models.decoding.generation import generate
from bigmodel.models.decoding.sampling import Sampling
from bigmodel.models.gpt import GPT
from conftest import Answer, call, is_quiet, records
from models.test_llama import CONFIG
from small_chat import TEMPLATE, WORDS, chat_folder, turns

DATA = Path(os.environ.get("BIGMODEL_DATA_DIR", "data")) / "models"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 23 tokens, of which its tokenizer knows 21."""
    pytest.importorskip("tokenizers")
    return chat_folder(tmp_path_factory.mktemp("weights") / "m")


@pytest.fixture(scope="module")
def run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A run of the folder's model, without the folder."""
    here = tmp_path_factory.mktemp("chat")
    made = Path(shutil.copytree(weights, here / "m"))
    (here / "t.txt").write_text(WORDS * 20)
    words = ("dataset=text", "dataset.path=t.txt", "dataset.context=16", "epochs=0", "device=cpu")
    (line,) = is_quiet(call("init.from=m", *words, "dataset.context=64", cwd=here), code=2)
    assert line == "dataset.context: got 64, but m reads at most 32 tokens; set dataset.context=32"
    answer = call("init.from=m", *words, cwd=here)
    assert answer.code == 0, answer.err
    shutil.rmtree(made)  # the checkpoint is enough
    return answer


def test_the_vocabulary_and_the_template_are_in_the_checkpoint(run: Answer) -> None:
    assert "loaded 23 of 23 tensors" in run.out
    spec = load(str(run.run)).processor_spec
    assert spec["chat"] == {"template": TEMPLATE, "special": {"eos_token": "<|end|>"}, "stop": [20]}
    tokenizer = tokenizer_from_spec(spec["tokenizer"])
    assert tokenizer.size == 23
    assert tokenizer.encode("ub<|end|>c").tolist() == [1, 20, 2]  # no token for u


def test_each_answer_follows_from_the_whole_conversation(
    run: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n\nho\n"))
    words = (f"run={run.run}", "chat=true", "sample.temperature=0", "sample.max_new_tokens=6", "device=cpu")
    answer = call(*words, cwd=tmp_path, verb="predict")
    assert answer.code == 0, answer.err
    first, second = answer.out.splitlines()
    predictor = load(str(run.run))
    assert isinstance(predictor.model, GPT)
    tokenizer = tokenizer_from_spec(predictor.processor_spec["tokenizer"])
    for prompt, said in (("uhi<|end|>a", first), (f"uhi<|end|>a{first}<|end|>uho<|end|>a", second)):
        tokens_1T = torch.from_numpy(tokenizer.encode(prompt))[None]
        made = generate(predictor.model, tokens_1T, 6, Sampling(temperature=0).choose, stop=[20])[0].tolist()
        assert said == tokenizer.decode([token for token in made if token != 20])
    one = call(*words, "input=hi", "format=json", cwd=tmp_path, verb="predict")
    assert json.loads(one.out) == {"input": "hi", "text": first}


def test_answers_alone_are_learned(weights: Path) -> None:
    lines = weights.parent / "c.jsonl"
    said = [turns("ab", "c", "d", "ef")]
    said.append({"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]})
    said.append({"instruction": "i", "input": "", "output": "o"})
    said.append({"instruction": "i", "instances": [{"input": "", "output": "o"}]})
    lines.write_text("\n".join(map(json.dumps, said)))
    found = conversations(str(lines), str(weights), context=32, val_fraction=0.0, vocab_size=23)
    inputs, targets = found.splits["train"]
    tokenizer = load_vocabulary(weights, 23)[0]
    # the user's letter u is no token; a begins an answer as the prompt would, and is not learned
    assert tokenizer.decode(inputs[0][inputs[0] >= 0].tolist()) == "abacdaef"  # special tokens are not shown
    assert [tokenizer.encode("c<|end|>").tolist(), tokenizer.encode("ef<|end|>").tolist()] == [[2, 20], [4, 5, 20]]
    assert targets[0].tolist() == [-1, -1, -1, 2, 20, -1, -1, -1, 4, 5, 20]
    assert [row[row >= 0].tolist() for row in targets[1:]] == [[6, 20], [14, 20], [14, 20]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting"),
        ("{}", "must hold messages, conversations, or instruction and output"),
        (turns("a"), "has no answer at its end"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "message 1 (assistant): out of order"),
        (turns("a", " "), "message 2 (assistant): is empty"),
        (turns("a" * 20, "b" * 20), "has 43 tokens, more than context=32"),
        ({"messages": [{"role": "judge", "content": "a"}]}, "message 1: needs role (human, gpt, user"),
        (turns("a", "b") | {"tools": [{"name": "x"}]}, "has 'tools', which is not read here"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "has 'history', which is not read here"),
        ({"messages": [*turns("a")["messages"], {"role": "assistant", "content": "b", "weight": 0}]}, "has 'weight'"),
        ('{"instruction": "a", "output": "b", "output": "c"}', "the key 'output' is there twice"),
        ({"instruction": "a", "output": "\ud83d"}, r"\ud83d is half of a character"),
    ],
)
def test_a_broken_conversation_is_named(line: object, why: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    good = json.dumps(turns("a", "b"))
    file.write_text(f"{good}\n\n{line if isinstance(line, str) else json.dumps(line)}\n")
    known = {"vocabulary": str(weights), "context": 32, "val_fraction": 0.0}
    with pytest.raises(DataError) as caught:
        conversations(str(file), **known)
    assert caught.value.lines[0].startswith(f"{file}:3: ")
    assert why in caught.value.lines[0]
    found = conversations(str(file), **known, broken="skip")
    assert len(found.splits["train"][0]) == 1
    assert found.notes[0].startswith(f"warning: {file}: 1 bad row skipped (dataset.broken=skip); the first: {file}:3: ")


def test_a_loaded_model_is_tuned_on_answers(weights: Path, cli: Callable[..., Answer], tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "c.jsonl").write_text("\n".join(json.dumps(turns(one, "b")) for one in WORDS))
    words = ("dataset=conversations", "dataset.path=c.jsonl", "dataset.context=32", "batch_size=6", "device=cpu")
    answer = cli(*words, f"init.from={weights}", "init.lora.rank=2", "epochs=8", "optim.lr=0.02", "listeners=[console]")
    assert answer.code == 0, answer.err
    losses = [line["loss"] for line in records(answer.run) if line.get("split") == "val"]
    assert losses[-1] < 0.7 * losses[0]
    talked = call(f"run={answer.run}", "chat=true", "input=a", "device=cpu", cwd=here, verb="predict")
    assert talked.code == 0, talked.err


def test_what_cannot_be_talked_to(run: Answer, tiny_run: Answer, tmp_path: Path) -> None:
    (line,) = is_quiet(call(f"run={tiny_run.run}", "chat=true", "device=cpu", cwd=tmp_path, verb="predict"), code=2)
    assert line.startswith("chat: this run's model has no chat template")
    (line,) = is_quiet(call(f"run={run.run}", "device=cpu", cwd=tmp_path, verb="predict"), code=2)
    assert line == "input: needs a value: input=..."
    long = call(f"run={run.run}", "chat=true", f"input={'h' * 60}", "device=cpu", cwd=tmp_path, verb="predict")
    (line,) = is_quiet(long, code=3)
    assert line == "input: the conversation has 62 tokens, 32 are the most"


def test_a_run_becomes_a_folder_as_it_was_published(run: Answer, weights: Path, tmp_path: Path) -> None:
    words = (f"run={run.run}", "format=hub", f"output={tmp_path / 'hub'}")
    answer = call(*words, cwd=tmp_path, verb="export")
    assert answer.code == 0, answer.err
    assert "differs by at most 0 from the original" in answer.out
    before, after = (load_file(one / "model.safetensors") for one in (weights, tmp_path / "hub"))
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    known = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert {key: known.get(key) for key in CONFIG if not key.startswith("rope")} == {
        key: value for key, value in CONFIG.items() if not key.startswith("rope")
    }
    assert read_published(tmp_path / "hub") == read_published(weights)
    (line,) = is_quiet(call(*words, cwd=tmp_path, verb="export"), code=2)
    assert line == f"output: '{tmp_path / 'hub'}' exists; name a new folder"


def test_byte_pairs_are_learned_from_any_text(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    pytest.importorskip("tokenizers")
    texts = ["one fish, two fish, red fish, blue fish, \u5bb6\n" * 9]
    made, again = (make_tokenizer("bpe", str(tmp_path), size=270, texts=lambda: texts) for _ in range(2))
    assert made.tokenizer.spec == again.tokenizer.spec
    assert made.tokenizer.size == 270
    strange = "a fish \U0001f600"
    assert made.tokenizer.decode(made.tokenizer.encode(strange).tolist()) == strange
    assert len(made.tokenizer.encode(" fish")) == 1
    here = tmp_path / "here"
    here.mkdir()
    (here / "t.txt").write_text(texts[0], encoding="utf-8")
    words = ("dataset=text", "dataset.path=t.txt", "dataset.tokenizer=bpe", "dataset.context=8", "device=cpu")
    (line,) = is_quiet(cli(*words, "dataset.vocab_size=8000", "dry_run=true"), code=2)
    assert line.startswith("dataset.vocab_size: this text has ")
    answer = cli(*words, "dataset.vocab_size=270", "dry_run=true")
    assert "tokenizer: 270 byte pairs of this text" in answer.out, answer.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_published_model_knows_a_capital(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    pytest.importorskip("gguf")
    file = DATA / "smollm2-135m-instruct.q4_1.gguf"
    if not file.is_file():
        pytest.skip(f"there is no {file}; BIGMODEL_DATA_DIR names the folder of models/")
    here = tmp_path / "here"
    here.mkdir()
    (here / "t.txt").write_text("Once upon a time there was a model. " * 20)
    words = ("dataset=text", "dataset.path=t.txt", "epochs=0", "device=cpu")
    answer = cli(*words, f"init.from={file}")
    assert answer.code == 0, answer.err
    asked = ("chat=true", "input=What is the capital of France?", "sample.temperature=0", "device=cpu")
    answer = cli(f"run={answer.run}", *asked, verb="predict")
    assert answer.out == "The capital of France is Paris.\n"
