"""Texts end where they are told to, one by one as many at once, and appear as they are made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bigmodel.datasets.text.tokenizers import CharTokenizer
from bigmodel.inference.predictor import load
from bigmodel.inference.processors.text_stream import TextStream
from bigmodel.models.decoding.generation import generate
from bigmodel.models.decoding.sampling import Sampling, TextSampling
from bigmodel.models.gpt import GPT
from conftest import Answer, call, is_quiet

RHYME = "one for sorrow, two for joy, three for a girl and four for a boy\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    here = tmp_path_factory.mktemp("rhyme")
    (here / "t.txt").write_text(RHYME * 24)
    words = ("dataset=text", "dataset.path=t.txt", "dataset.tokenizer=char", "dataset.context=32", "device=cpu")
    words += ("device.threads=1", "model.layers=2", "model.width=32", "batch_size=8", "epochs=12", "optim.lr=0.01")
    answer = call(*words, "listeners=[]", cwd=here)
    assert answer.code == 0, answer.err
    return answer


def test_many_prompts_say_what_each_says_alone(run: Answer) -> None:
    predictor = load(str(run.run))
    prompts = ["one", "t", "two for j", "three for a girl and four", "o"]
    for sample in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"min_p": 0.2, "repetition_penalty": 1.5}):
        options = {"sample": {**sample, "max_new_tokens": 12, "stop": ["y"]}}
        together = predictor.predict(prompts, **options)
        assert [one.answer for one in together] == [predictor.predict([one], **options)[0].answer for one in prompts]
    assert len({one.answer["text"] for one in together}) > 3


def test_padding_on_the_left_changes_no_token() -> None:
    torch.manual_seed(0)
    model = GPT(11, 16, layers=2, heads=4, width=16, kv_heads=2, window=3, full_layers=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = [torch.randint(11, (length,)) for length in (5, 1, 3)]
    padded_NT = torch.stack([torch.nn.functional.pad(row, (5 - len(row), 0), value=-1) for row in rows])
    for sampling in (Sampling(temperature=0), TextSampling(seed=1, repetition_penalty=1.2)):
        alone = torch.cat([generate(model, row[None], 11, sampling.choose) for row in rows])
        for cached in (True, False):
            assert generate(model, padded_NT, 11, sampling.choose, cached=cached).equal(alone)


def test_the_next_token_of_a_row_depends_on_no_other_row() -> None:
    logits_NV = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    tokens_NT = torch.tensor([[-1, 4], [2, 4], [2, 5]])
    sampling = TextSampling(repetition_penalty=2.0)
    together = sampling.choose(logits_NV, tokens_NT, [1, 2, 2])
    alone = [
        sampling.choose(logits_NV[n : n + 1], row[row >= 0][None], [int((row >= 0).sum())])
        for n, row in enumerate(tokens_NT)
    ]
    assert together.tolist() == [int(one) for one in alone]


def test_what_was_said_becomes_less_probable() -> None:
    greedy = TextSampling(temperature=0, repetition_penalty=1.5)
    logits_NV = torch.tensor([[3.0, 2.5, -1.0], [-1.0, -1.2, -4.0]])
    assert greedy.choose(logits_NV, torch.tensor([[-1, 0], [2, 0]]), [1, 2]).tolist() == [1, 1]
    assert greedy.choose(logits_NV, torch.tensor([[-1, 2], [-1, 2]]), [1, 1]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("stops", "said", "pieces"),
    [
        ((), "ab,cabd", ["a", "b", ",", "c", "a", "b", "d"]),
        (("abd",), "ab,c", ["", "", "ab,", "c", "", "", ""]),
        (("c", ","), "ab", ["a", "b", ""]),
        (("bde",), "ab,cabd", ["a", "", "b,", "c", "a", "", ""]),
    ],
)
def test_a_text_ends_before_a_string(stops: tuple[str, ...], said: str, pieces: list[str]) -> None:
    tokenizer = CharTokenizer(",abcde")
    stream = TextStream(tokenizer, [5], stops)
    found = []
    for token in tokenizer.encode("ab,cabd").tolist():
        found.append(stream.add(token))
        if stream.has_ended:
            break
    assert found == pieces
    assert "".join([*found, stream.close()]) == stream.text == said
    assert stream.add(0) == ""


def test_a_text_ends_before_a_token() -> None:
    tokenizer = CharTokenizer("abc")
    stop = tokenizer.encode("b").tolist()
    stream = TextStream(tokenizer, stop)
    assert [stream.add(token) for token in tokenizer.encode("aab").tolist()] == ["a", "a", ""]
    assert (stream.text, len(stream.tokens), stream.has_ended) == ("aa", 2, True)


def test_it_appears_as_it_is_made(run: Answer, tmp_path: Path) -> None:
    words = (f"run={run.run}", "sample.temperature=0", "sample.max_new_tokens=20", "device=cpu", "sample.stop=[joy]")
    whole, streamed = (
        call(*words, "input=one for", *more, cwd=tmp_path, verb="predict") for more in ((), ("stream=true",))
    )
    assert (whole.code, streamed.code) == (0, 0), whole.err + streamed.err
    assert whole.out == streamed.out
    assert "joy" not in whole.out
    (tmp_path / "p.jsonl").write_text('"one"\n{"prompt": "two"}\n')
    many = call(*words, "input=p.jsonl", "format=json", cwd=tmp_path, verb="predict")
    assert [json.loads(line)["input"] for line in many.out.splitlines()] == ["one", "two"]
    (line,) = is_quiet(call(*words, "input=p.jsonl", "stream=true", cwd=tmp_path, verb="predict"), code=2)
    assert line.startswith("stream: prints one text as it comes; give one input")
    (tmp_path / "p.jsonl").write_text('"one"\n{"prompts": "two"}\n')
    (line,) = is_quiet(call(*words, "input=p.jsonl", cwd=tmp_path, verb="predict"), code=3)
    assert line == "input: p.jsonl:2: must be a text, or hold one as prompt"


def test_a_picture_is_no_text_to_stream(tiny_run: Answer, tmp_path: Path) -> None:
    answer = call(f"run={tiny_run.run}", "input=.", "stream=true", "device=cpu", cwd=tmp_path, verb="predict")
    assert is_quiet(answer, code=2)[0].startswith("stream: this run's model generates no text")
