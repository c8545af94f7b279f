"""A built wheel carries the YAML groups and the digits, and runs from any directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's contents, as an installer lays them out."""
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling: pip install 'bigmodel-train[test]'")
    out = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_wheel_holds_every_yaml(unpacked):
    carried = {path.relative_to(unpacked / "bigmodel/conf") for path in (unpacked / "bigmodel/conf").rglob("*.yaml")}
    assert carried == {path.relative_to(REPO / "conf") for path in (REPO / "conf").rglob("*.yaml")}
    assert (unpacked / "bigmodel/py.typed").exists()
    assert (unpacked / "hydra_plugins/bigmodel/launcher.py").exists()
    assert not (unpacked / "hydra_plugins/__init__.py").exists()  # other packages' plugins lie beside ours


@pytest.mark.slow
def test_wheel_trains_from_any_directory(unpacked, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    words = [sys.executable, "-m", "bigmodel", "train", "experiment=smoke"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test " in done.stdout
    origin = [sys.executable, "-c", "import bigmodel; print(bigmodel.__file__)"]
    found = subprocess.run(origin, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(unpacked))
    assert list(tmp_path.glob("outputs/*/*/summary.json"))
