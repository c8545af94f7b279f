"""`bigmodel-merge`: several runs' weights made one, by each of the ways; what does not go together is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bigmodel.models.weights.merging import Merge, average, slerp, ties
from conftest import TINY, Answer, call, only_run


def runs(where: Path) -> list[Path]:
    return sorted(where.glob("outputs/????-??-??/*"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def rate(run: Path) -> float:
    return float(re.search(r"  lr: (.*)", (run / "config.yaml").read_text()).group(1))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, and three that go on from it with other rates, the last with one that does harm."""
    where = tmp_path_factory.mktemp("tuned")
    assert call(*TINY, cwd=where).code == 0
    base = only_run(where)
    for lr in (0.02, 0.1, 300.0):
        answer = call(*TINY, "epochs=1", f"init.from={base}", f"optim.lr={lr}", "clip_norm=1", cwd=where)
        assert answer.code == 0, answer.err
    return [base, *sorted((path for path in runs(where) if path != base), key=rate)]


def merged(tmp_path: Path, *words: str) -> Answer:
    answer = call(*words, f"output_dir={tmp_path / 'outputs'}", cwd=tmp_path, verb="merge")
    assert answer.code == 0, answer.err
    return answer


def test_an_average_is_the_mean_of_the_weights_and_its_run_names_and_tests_them(tmp_path: Path, tuned) -> None:
    a, b = tuned[1:3]
    answer = merged(tmp_path, f"runs=[{a},{b}]", "weights=[3,1]")
    run = answer.run
    for name, tensor in weights(run).items():
        expected = (3 * weights(a)[name].double() + weights(b)[name].double()) / 4
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-7)
    text = (run / "config.yaml").read_text()
    assert str(a) in text
    assert str(b) in text
    assert "accuracy" in json.loads((run / "summary.json").read_text())["test"]
    assert call(f"run={run}", cwd=tmp_path, verb="evaluate").code == 0


def test_a_greedy_soup_leaves_out_what_makes_it_worse(tmp_path: Path, tuned) -> None:
    answer = merged(tmp_path, *map(str, tuned[1:]), "how=greedy", "metric=loss")
    told = [line.split(": ")[0] for line in answer.out.splitlines() if line.startswith(("kept", "left out"))]
    assert told[0] == "kept"
    assert told.count("left out") >= 1
    assert str(tuned[3]) not in (answer.run / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "runs: merging needs two models or more, got 0"),
        (("runs=[{0},{1},{2}]", "how=slerp"), "runs: how: slerp goes between two models, got 3"),
        (("runs=[{0},{1}]", "how=ties"), "base: needs the model that all were tuned from"),
        (("runs=[{0},{1}]", "weights=[1]"), "weights: must be 2 numbers"),
        (("runs=[{0},{1}]", "weights=[0,0]"), "weights: at least one must be above 0"),
        (("runs=[{0},{1}]", "weights=[1,x]"), "weights: must be a number, not 'x'"),
        (("runs=[{0},{1}]", "metric=loss"), "metric: applies to how=greedy only"),
        (("runs=[{0},{1}]", "how=greedy", "metric=los"), "metric: there is no 'los'; did you mean loss?"),
        (("runs=[{0},nowhere]",), "there is no run at 'nowhere'"),
        (("runs=[{0},{1}]", "hwo=ties"), "hwo: no such setting; did you mean how?"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_a_line(tmp_path: Path, tuned, words, said) -> None:
    answer = call(*(word.format(*tuned) for word in words), cwd=tmp_path, verb="merge")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_runs_of_other_models_are_refused(tmp_path: Path, tuned) -> None:
    assert call(*TINY, "model.hidden=[8]", "epochs=1", cwd=tmp_path).code == 0
    answer = call(str(tuned[0]), str(only_run(tmp_path)), cwd=tmp_path, verb="merge")
    assert answer.code == 2
    assert "only models of one architecture merge" in answer.err


def test_each_way_by_hand() -> None:
    one, two = (
        {"w": torch.tensor([1.0, 0.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([0.0, 1.0]), "n": torch.tensor(5)},
    )
    assert average([one, two], [0.25, 0.75])["w"].tolist() == [0.25, 0.75]
    assert average([one, two], [0.5, 0.5])["n"] == 3  # a counter of batches is no weight
    torch.testing.assert_close(slerp(one, two, 1 / 3)["w"], torch.tensor([0.75**0.5, 0.5]))
    assert slerp(one, one, 0.3)["w"].tolist() == [1.0, 0.0]
    base = {"w": torch.zeros(4)}
    first, second = {"w": torch.tensor([4.0, 1.0, -3.0, 0.1])}, {"w": torch.tensor([2.0, -5.0, 1.0, 0.2])}
    # kept: 4 and -3; 2 and -5. Signs: +, -, -, none.
    assert ties([first, second], base, [0.5, 0.5], 0.5, 1.0)["w"].tolist() == [3.0, -5.0, -3.0, 0.0]
    assert ties([first, second], base, [0.5, 0.5], 0.5, 2.0)["w"].tolist() == [6.0, -10.0, -6.0, 0.0]


def test_models_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match="a has a tensor x, which b lacks"):
        Merge().merge({"a": {"w": torch.ones(1), "x": torch.ones(1)}, "b": {"w": torch.ones(1)}})
    with pytest.raises(ValueError, match=r"w is \[1\] in a and \[2\] in b"):
        Merge().merge({"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(2)}})
