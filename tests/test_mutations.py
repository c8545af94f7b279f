"""Each mutation of scripts/mutations.py still finds the code that it changes, and the tests that are to notice."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_each_mutation_finds_its_code_and_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "scripts" / "mutations.py"
    if not script.is_file():
        pytest.skip("needs the checkout")
    monkeypatch.syspath_prepend(script.parent)
    module = importlib.import_module("mutations")
    names = {
        file: {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}
        for file in (ROOT / "tests").rglob("test_*.py")
    }
    for one in module.MUTATIONS:
        text = (ROOT / "src" / "bigmodel" / one.file).read_text(encoding="utf-8")
        assert [text.count(old) for old, _ in one.changes] == [1] * len(one.changes), one.name
        for test in one.tests:
            file, _, name = test.partition("::")
            assert not name or name.partition("[")[0] in names[ROOT / file], (one.name, test)
