"""What a shared folder says of seeds, licenses and foreign names, and that a kill leaves a whole folder or none."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError
from bigmodel.runs.comparison.significance import wilson_interval
from bigmodel.runs.manifest import verify
from bigmodel.runs.sharing.cost import estimate_energy
from bigmodel.runs.sharing.licenses import HUB, data_license, refuse_base, told_of_data
from bigmodel.runs.sharing.markdown import code, escape, table
from bigmodel.runs.sharing.private import PATH, Names, find_private, without_private
from conftest import TINY, Answer, call, is_quiet
from forks import finished, launch

NOBODY = Names("root", "localhost", "/root")


def share(run: Path | str, cwd: Path, *words: str, card: str = "license: mit", to: str = "mine") -> Answer:
    (cwd / "card.yaml").write_text(card, encoding="utf-8")
    return call(f"run={run}", f"to={to}", *words, cwd=cwd, verb="share")


def runs(where: Path) -> list[Path]:
    return sorted(where.glob("outputs/????-??-??/*"))


def test_seeds_give_a_mean_with_its_interval_and_the_first_ones_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        assert call(*TINY, f"seed={seed}", cwd=tmp_path).code == 0
    first, second = runs(tmp_path)
    answer = share(f"[{first},{second}]", tmp_path)
    assert answer.code == 0, answer.err
    values = [json.loads((run / "summary.json").read_text())["test"]["accuracy"] for run in (first, second)]
    told = json.loads((tmp_path / "mine" / "metrics.json").read_text())["metrics"]["accuracy"]
    assert told["value"] == values[0]
    assert told["seeds"]["n"] == 2
    assert told["seeds"]["mean"] == pytest.approx(sum(values) / 2)
    half = 12.706204736 * abs(values[0] - values[1]) / 2  # Student's t of one degree of freedom
    assert told["seeds"]["high"] - told["seeds"]["mean"] == pytest.approx(half)
    assert f"{sum(values) / 2:.2%}" in (tmp_path / "mine" / "README.md").read_text()


def test_runs_that_are_not_one_model_are_refused(tmp_path: Path, tiny_run: Answer) -> None:
    assert call(*TINY, "log_every=2steps", "optim.lr=0.2", cwd=tmp_path).code == 0
    (line,) = is_quiet(share(f"[{tiny_run.run},{runs(tmp_path)[0]}]", tmp_path), code=2)
    assert line == "run: runs that differ in optim.lr are not one model; give runs of one config"


def test_data_of_ones_own_must_have_a_license(tmp_path: Path) -> None:
    rows = "".join(f"{n % 7},{n % 3},{'|a](http://x.y) <b>' if n % 2 else '`z`'}\n" for n in range(60))
    (tmp_path / "t.csv").write_text(f"u,v,kind\n{rows}")
    words = ("dataset=table", "dataset.train=t.csv", "dataset.target=kind", "epochs=1", "device=cpu")
    trained = call(*words, cwd=tmp_path)
    assert trained.code == 0, trained.err
    (line,) = is_quiet(share(trained.run, tmp_path), code=2)
    assert line.startswith("card: data_license: must be answered")
    answer = share(trained.run, tmp_path, card="license: mit\ndata_license: mine alone\ndata_name: my table")
    assert answer.code == 0, answer.err
    text = (tmp_path / "mine" / "README.md").read_text()
    assert "| license | mine alone |" in text
    assert "Confusion matrix" in text
    markdown = pytest.importorskip("markdown_it")
    shown = markdown.MarkdownIt("gfm-like", {"linkify": False}).render(text.split("---\n", 2)[2])
    assert "<b>" not in shown
    assert "http://x.y" not in "".join(part.partition('"')[0] for part in shown.split('href="')[1:])
    assert "|a](http://x.y) &lt;b&gt;" in shown


def test_weights_that_began_as_others_keep_their_license(tmp_path: Path, tiny_run: Answer) -> None:
    assert share(tiny_run.run, tmp_path, card="license: cc-by-nc-4.0", to="theirs").code == 0
    assert call(*TINY, "init.from=theirs", cwd=tmp_path).code == 0
    (run,) = runs(tmp_path)
    (line,) = is_quiet(share(run, tmp_path), code=2)
    assert line.startswith("license: the weights began as theirs, which cc-by-nc-4.0 gives for non-commercial use only")
    assert share(run, tmp_path, card="license: cc-by-nc-4.0").code == 0
    assert "| weights they began as: theirs | cc-by-nc-4.0 |" in (tmp_path / "mine" / "LICENSES.md").read_text()
    shutil.rmtree(tmp_path / "theirs")
    (line,) = is_quiet(share(run, tmp_path, to="again"), code=2)
    assert line.startswith("card: base_license: of theirs, which the weights began as, must be answered")
    assert share(run, tmp_path, card="license: mit\nbase_license: mit", to="again").code == 0


def test_every_dataset_states_its_license_or_is_the_users_own() -> None:
    for file in sorted((conf_directory() / "dataset").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        is_own = text.startswith("# Your own")
        assert ("\n# License: " in text) != is_own, file.name
        keys = yaml.safe_load(text)
        found = data_license({key: value for key, value in keys.items() if key != "goes_with"})
        assert (found.text is None) == is_own, file.name
        plain = (found.text or "mit").partition(" (")[0]
        assert plain in (*HUB, "none stated by its authors", "public domain"), file.name


def test_other_files_than_the_published_ones_are_the_users_own() -> None:
    keys = yaml.safe_load((conf_directory() / "dataset" / "adult.yaml").read_text(encoding="utf-8"))
    assert data_license(keys).text == "cc-by-4.0"
    assert data_license(keys | {"train": "mine.csv"}).text is None


@pytest.mark.parametrize(
    ("weights", "data", "said"),
    [
        ("mit", "cc-by-nc-4.0", "for non-commercial use only"),
        ("mit", "cc-by-sa-4.0", "asks for the same license"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0", ""),
        ("mit", "cc-by-nd-4.0", "may not be changed"),
        ("mit", "none stated by its authors", "state no license"),
        ("mit", "cc-by-4.0", ""),
        ("apache-2.0", "gpl-3.0", "asks for the same license"),
    ],
)
def test_mixing_is_told(weights: str, data: str, said: str) -> None:
    told = " ".join(told_of_data(weights, data))
    assert said in told
    assert bool(said) == bool(told)


@pytest.mark.parametrize(
    ("weights", "base"), [("mit", "cc-by-nc-4.0"), ("mit", "cc-by-sa-4.0"), ("mit", "cc-by-nd-4.0")]
)
def test_a_license_that_forbids_is_refused(weights: str, base: str) -> None:
    with pytest.raises(ConfigError, match=r"license: the weights began as x"):
        refuse_base(weights, base, "x")
    refuse_base("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "x")


def test_an_interval_of_a_share_is_wilsons() -> None:
    assert wilson_interval(0.8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson_interval(1.0, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert wilson_interval(0.0, 10)[0] == 0.0


def test_energy_is_time_times_power_and_says_whose() -> None:
    cpu = estimate_energy(3600, "cpu (x86_64, 2 threads)", 1, "")
    assert cpu is not None
    assert cpu.kwh == pytest.approx(0.02)
    gpu = estimate_energy(3600, "cuda:0 (NVIDIA H200)", 2, "")
    assert gpu is not None
    assert (gpu.kwh, "700 W" in gpu.method) == (pytest.approx(1.4), True)
    assert estimate_energy(3600, "cuda (Nobody's GPU)", 1, "") is None
    own = estimate_energy(3600, "cuda (Nobody's GPU)", 1, "250")
    assert own is not None
    assert "measured" in own.method


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("data in /data/photos/x.png", True),
        ("~/photos", True),
        (r"C:\Users\x", True),
        ("file:///x/y", True),
        ("samples/s and val/accuracy, 1/2", False),
        ("https://archive.ics.uci.edu/dataset/2/adult", False),
        ("</b> / <i>", False),
        ("and/or /", False),
    ],
)
def test_what_a_path_looks_like(text: str, private: bool) -> None:
    assert bool([one for one in find_private("", text, NOBODY) if one.kind == PATH]) == private


def test_only_paths_of_a_config_are_cut(tmp_path: Path) -> None:
    config = {"separator": "/", "root": str(tmp_path / "photos"), "n": 3, "from": [str(tmp_path / "a"), "outputs/b"]}
    config |= {"vocabulary": "/srv/data/shared/words"}
    kept, keys = without_private({"dataset": config}, NOBODY, "/srv/data")
    assert kept == {
        "dataset": {
            "separator": "/",
            "root": "photos",
            "n": 3,
            "from": ["a", "outputs/b"],
            "vocabulary": "data/shared/words",
        }
    }
    assert keys == ["dataset.root", "dataset.from", "dataset.vocabulary"]


def test_foreign_text_stays_text() -> None:
    assert escape("a|b\n[c](d) <e> `f` *g* https://h www.i") == (r"a\|b\\n\[c\](d) \<e\> \`f\` \*g\* https\://h www\.i")
    assert code("a`|b") == "`a'/b`"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_leaves_a_whole_folder_or_none(tiny_run: Answer, tmp_path: Path) -> None:
    """20 kills, spread over the time that a share takes."""
    (tmp_path / "card.yaml").write_text("license: mit")
    words = (f"run={tiny_run.run}", "to=mine")
    began = time.monotonic()
    assert finished(launch(*words, cwd=tmp_path, verb="share")) == 0
    took, states = time.monotonic() - began, set()
    for kill in range(20):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        process = launch(*words, cwd=tmp_path, verb="share")
        time.sleep(took * (kill + 1) / 20)
        process.kill()
        process.join()
        states.add((tmp_path / "mine").exists())
        if (tmp_path / "mine").exists():
            verify(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine", ignore_errors=True)
    assert finished(launch(*words, cwd=tmp_path, verb="share")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.yaml", "mine"]
    assert False in states
