"""The notebooks of examples/ run from top to bottom, and a kernel can be interrupted."""

from __future__ import annotations

import io
import json
import re
import signal
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def _cells(file: Path, kind: str) -> list[str]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_there_are_three_without_outputs():
    """Outputs hold times and paths, so they would change with each run; readers make them in seconds."""
    assert [file.name for file in NOTEBOOKS] == ["1-train.ipynb", "2-compare-a-sweep.ipynb", "3-use-a-model.ipynb"]
    for file in NOTEBOOKS:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
        assert _cells(file, "markdown")[0].startswith("# ")


def test_the_first_one_runs_in_this_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIGMODEL_DATA_DIR", raising=False)
    names: dict[str, object] = {}
    with redirect_stdout(io.StringIO()) as printed:
        for code in _cells(NOTEBOOKS[0], "code"):
            exec(code.replace("epochs=5", "epochs=1").replace("epochs=8", "epochs=2"), names)
    assert "optim.lrr: no such setting" in printed.getvalue()
    assert not re.search(r"[\r\x1b\b]", printed.getvalue())
    assert names["run"].summary["steps"] == 42


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_kernel_executes_it(file, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs: pip install 'bigmodel-train[notebooks]'")
    client = pytest.importorskip("nbclient", reason="needs: pip install 'bigmodel-train[notebooks]'")
    pytest.importorskip("ipykernel", reason="needs: pip install 'bigmodel-train[notebooks]'")
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    client.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("<table>" in one for one in shown)
    assert any("<svg" in one for one in shown) or file.name.startswith("3")
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert not re.search(r"\r(?!\n)|\x1b|\x08", printed)


@pytest.mark.slow
def test_the_stop_button_saves_the_run(tmp_path):
    """An interrupt ends the cell with the words that resume the run, and the next cell does; handlers are as before."""
    manager = pytest.importorskip("jupyter_client.manager", reason="needs: pip install 'bigmodel-train[notebooks]'")
    pytest.importorskip("ipykernel", reason="needs: pip install 'bigmodel-train[notebooks]'")
    kernel, client = manager.start_new_kernel(cwd=str(tmp_path))

    def execute(code: str, stop_at: str = "") -> tuple[str, str]:
        """What a cell prints, and its error; it is interrupted once it has printed `stop_at`."""
        printed, waiting = "", bool(stop_at)

        def seen(message):
            nonlocal printed, waiting
            printed += message["content"].get("text", "")
            if waiting and stop_at in printed:
                waiting = False
                kernel.interrupt_kernel()

        reply = client.execute_interactive(code, output_hook=seen, timeout=240)["content"]
        return printed, f"{reply.get('ename', '')}: {reply.get('evalue', '')}"

    try:
        execute("import bigmodel, signal; before = signal.getsignal(signal.SIGINT)")
        words = '["model=mlp", "device=cpu", "epochs=100000", "log_every=5steps"]'
        _, error = execute(f"bigmodel.train({words})", "loss")
        assert re.match(r"Interrupted: stopped by SIGINT at step \d+ of \d+, saved; resume with: ", error)
        printed, error = execute(
            "assert signal.getsignal(signal.SIGINT) is before\n"
            "(interrupted,) = bigmodel.runs()\nprint(repr(interrupted))\n"
            'bigmodel.train([f"resume={interrupted.directory}", "epochs=100000"], dry_run=True)'
        )
        assert "interrupted" in printed
        assert "Interrupted" not in error
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
