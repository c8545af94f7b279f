"""Molecules: strings become tokens and back, gaps stay gaps, no string is in two splits, and bad rows are named."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.datasets.loading.tensors import TensorDataset
from bigmodel.datasets.text.molecules import molecules, smiles_strings
from bigmodel.datasets.text.smiles import SmilesTokenizer
from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.errors import ConfigError, DataError

CHAINS = [f"{'C' * (1 + n % 40)}O,{n % 40},{n % 2},{(n // 2) % 2 if n % 3 else ''}" for n in range(60)]


def opened(folder: Path, rows: list[str] = CHAINS, *, targets: list[str], **settings: Any) -> TensorDataset:
    (folder / "chains.csv").write_text("\n".join(["smiles,length,odd,high", *rows]) + "\n", encoding="utf-8")
    form = {"smiles": "smiles", "context": 64, "val_fraction": 0.2, "test_fraction": 0.1}
    return molecules(**{"root": str(folder), "train": "chains.csv", "targets": targets} | form | settings)


def texts(data: TensorDataset) -> dict[str, set[str]]:
    """The strings of each split."""
    rows = {name: inputs[torch.arange(len(inputs))].tolist() for name, (inputs, _) in data.splits.items()}
    decode = SmilesTokenizer().decode
    return {name: {decode([token for token in row if token >= 0]) for row in part} for name, part in rows.items()}


def test_strings_are_cut_at_atoms_and_put_together_again() -> None:
    tokenizer = tokenizer_from_spec(SmilesTokenizer().spec)
    counts = {"Clc1ccccc1Br": 10, "C[C@@H](N)C(=O)[O-]": 11, "[13CH4].[Na+]": 12, "CSc1[nH]cc[n+]1[O-]": 10}
    for string, count in counts.items():
        tokens = tokenizer.encode(string).tolist()
        assert (len(tokens), tokenizer.decode(tokens)) == (count, string)
    assert len({tokenizer.decode([number]) for number in range(tokenizer.size)}) == tokenizer.size
    for string, place in {"CCx": "'x', character 3", "C[Xx]C": "'X', character 3", "CO[": r"'\[', character 3"}.items():
        with pytest.raises(DataError, match=f"not a SMILES string: unexpected {place}"):
            tokenizer.encode(string)


def test_the_same_string_is_never_in_two_splits(tmp_path: Path) -> None:
    data = opened(tmp_path, targets=["length"], target_type="number")
    seen = texts(data)
    assert {name: len(part) for name, part in seen.items()} == {"train": 29, "val": 7, "test": 4}  # of 40 strings
    assert len(set.union(*seen.values())) == 40
    assert sum(len(inputs) for inputs, _ in data.splits.values()) == len(CHAINS)
    _, targets = data.splits["train"]
    values = targets[torch.arange(len(targets))]
    assert (values.mean().item(), values.std(correction=0).item()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    assert data.properties["target_std"] == data.spec["target_std"]


def test_unknown_labels_are_nan_and_a_class_is_a_number(tmp_path: Path) -> None:
    labels = opened(tmp_path, targets=["odd", "high"], target_type="labels", test_fraction=0.0, val_fraction=0.0)
    known = [[float(cell or "nan") for cell in row.split(",")[2:]] for row in CHAINS]
    assert torch.equal(labels.splits["train"][1][torch.arange(60)].nan_to_num(-1), torch.tensor(known).nan_to_num(-1))
    assert (labels.properties["labels"], labels.properties["outputs"], "num_classes" in labels.properties) == (
        ["odd", "high"],
        2,
        False,
    )
    classes = opened(tmp_path, targets=["odd"], target_type="class")
    assert (classes.properties["num_classes"], classes.spec["classes"]) == (2, ["0", "1"])
    with pytest.raises(ConfigError, match=r"dataset\.targets: .* takes one column"):
        opened(tmp_path, targets=["odd", "high"], target_type="class")


@pytest.mark.parametrize(
    ("row", "target", "words"),
    [
        (
            "CCx,1,0,1",
            "number",
            "chains.csv:3: column 'smiles': 'CCx' is not a SMILES string: unexpected 'x', character 3",
        ),
        (",1,0,1", "number", "chains.csv:3: column 'smiles': empty"),
        ("CC,long,0,1", "number", "chains.csv:3: column 'length': 'long' is not a number"),
        ("CC,,0,1", "number", "chains.csv:3: column 'length': the target is missing"),
        ("CC,0.5,0,1", "labels", "chains.csv:3: column 'length': '0.5' is neither 0 nor 1"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path: Path, row: str, target: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(tmp_path, ["CO,1,1,1", row, "CN,0,1,1"], targets=["length"], target_type=target)


def test_strings_that_any_file_holds_out_are_not_trained_on(tmp_path: Path) -> None:
    one = opened(tmp_path, targets=["odd"], target_type="class")
    with gzip.open(tmp_path / "more.csv.gz", "wt") as file:
        file.write("\n".join(["mol", *(f"{'C' * n}O" for n in range(1, 25)), *(f"{'N' * n}" for n in range(1, 25))]))
    settings: dict[str, Any] = {"files": ["chains.csv", "more.csv.gz"], "smiles": ["mol", "smiles"], "context": 64}
    both = smiles_strings(str(tmp_path), **settings, val_fraction=0.2, test_fraction=0.1)
    seen, alone = texts(both), texts(one)
    held = alone["val"] | alone["test"]
    assert not held & seen["train"]
    assert held & seen["val"]
    assert not seen["train"] & (seen["val"] | seen["test"])
    (tmp_path / "more.csv.gz").write_bytes((tmp_path / "more.csv.gz").read_bytes()[:40])
    with pytest.raises(DataError, match=r"more\.csv\.gz: damaged or cut off"):
        smiles_strings(str(tmp_path), **settings, val_fraction=0.2, test_fraction=0.1)


def test_the_published_files_are_as_they_should_be() -> None:
    folder = Path(os.environ.get("BIGMODEL_DATA_DIR", "none")) / "shared/molecules"
    if not (folder / "esol.csv").is_file():
        pytest.skip("BIGMODEL_DATA_DIR holds no molecules")
    data = molecules(
        str(folder),
        "esol.csv",
        smiles="smiles",
        targets=["measured log solubility in mols per litre"],
        target_type="number",
        context=128,
        val_fraction=0.1,
        test_fraction=0.1,
    )
    assert {name: len(inputs) for name, (inputs, _) in data.splits.items()} == {"train": 914, "val": 102, "test": 112}


def test_labels_of_which_nothing_is_known_or_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    rows = [f"{'C' * n},{n},1," for n in range(1, 9)]
    with pytest.raises(DataError, match="no training row has a value for 'high'"):
        opened(tmp_path, rows, targets=["odd", "high"], target_type="labels")
    with pytest.raises(ConfigError, match="names a column twice: odd, odd"):
        opened(tmp_path, rows, targets=["odd", "odd"], target_type="labels")


def test_a_class_of_one_molecule_is_trained_on(tmp_path: Path) -> None:
    rows = [f"{'C' * n}O,{n},{n if n > 32 else n % 2}," for n in range(1, 41)]
    data = opened(tmp_path, rows, targets=["odd"], target_type="class", test_fraction=0.4)
    _, targets = data.splits["train"]
    assert {*targets.tolist()} == set(range(10))
    assert sum(len(inputs) for inputs, _ in data.splits.values()) == 40
    assert any(note.startswith("warning: fewer than 5 training molecules: 33 1") for note in data.notes)
    assert not any("target_type=number" in note for note in data.notes)


def test_numbers_with_a_fraction_are_no_names_of_classes(tmp_path: Path) -> None:
    data = opened(tmp_path, [f"{'C' * n}O,{n},{n / 2}," for n in range(1, 41)], targets=["odd"], target_type="class")
    (warning,) = [note for note in data.notes if "target_type=number" in note]
    assert warning.startswith("warning: each number is a class of its own, as 0.5 and 1.0; to predict numbers, set ")
