"""Greedy and beam decoding of CTC outputs, and edit distances, each against a plain way to the same."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.interfaces import Batch
from bigmodel.models.decoding.ctc import beam_search, greedy_decode
from bigmodel.padding import pad
from bigmodel.tasks.ctc import CTC
from bigmodel.tasks.metrics.edit_distance import edit_distances
from named_sums import added


def collapsed(path):
    """What a path of classes, one a frame, says: repetitions once, no blanks."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


def levenshtein(found, true):
    row = list(range(len(true) + 1))
    for i, one in enumerate(found, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(true, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (one != other))
    return row[-1]


def test_greedy_takes_repetitions_once_and_leaves_blanks_out():
    paths = torch.tensor([[0, 2, 2, 0, 2, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    found = greedy_decode(torch.nn.functional.one_hot(paths, 3).float())
    assert found.tolist() == [[2, 2, 1, -1, -1, -1], [1, -1, -1, -1, -1, -1], [-1] * 6]


sequences = st.lists(st.integers(1, 3), max_size=7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=4))
def test_edit_distances_are_those_of_the_textbook(pairs):
    rows = [pad([torch.tensor(row, dtype=torch.int64) for row in side]) for side in zip(*pairs, strict=True)]
    assert edit_distances(*rows).tolist() == [levenshtein(*pair) for pair in pairs]


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_every_text_with_the_probability_of_all_its_paths(seed):
    frames, classes = 4, 3
    log_probs = (3 * torch.randn(frames, classes, generator=torch.Generator().manual_seed(seed))).log_softmax(1)
    probs: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        probs[collapsed(path)] = probs.get(collapsed(path), 0.0) + math.exp(
            sum(log_probs[t, symbol].item() for t, symbol in enumerate(path))
        )
    found = {text: math.exp(value) for text, value in beam_search(log_probs, 1000)}
    assert {text: value for text, value in found.items() if value} == pytest.approx(probs)
    assert beam_search(log_probs, 8)[0][0] == max(probs, key=probs.__getitem__)


def test_beam_search_adds_up_what_greedy_decoding_sees_apart():
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # "" has 0.36, "a" 0.16 + 0.24 + 0.24
    assert greedy_decode(log_probs[None]).tolist() == [[-1, -1]]
    text, value = beam_search(log_probs, 2)[0]
    assert (text, math.exp(value)) == ((1,), pytest.approx(0.64))


def test_errors_are_counted_over_all_texts_whatever_the_batches():
    characters = " enosy"
    true, found = ["yes no", "no", "yes yes yes"], ["yes on", "", "yes yes yes"]
    rows = [
        torch.tensor([symbol for c in text for symbol in (1 + characters.index(c), 0)], dtype=torch.int64)
        for text in found
    ]
    frames = pad(rows).clamp(min=0)
    logits = 20.0 * torch.nn.functional.one_hot(frames, 1 + len(characters)).float()
    targets = pad([torch.tensor([1 + characters.index(c) for c in text]) for text in true])
    task, loss = CTC(characters, beam=2), torch.tensor(1.5)
    sums = task.eval_sums(loss, logits, Batch(logits, targets))
    apart = [task.eval_sums(loss, logits[i : i + 1], Batch(logits, targets[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(added([sums]), added(apart))
    errors = {"character_error": 4 / 19, "word_error": 2 / 6, "beam_word_error": 2 / 6}
    assert task.eval_metrics(sums) == pytest.approx({"loss": 1.5} | errors)
    assert (
        set(task.metric_names)
        == {"loss", *errors}
        <= {name for name, spec in task.metric_specs.items() if spec.direction == "min"}
    )
