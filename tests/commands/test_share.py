"""`bigmodel-share`: a folder that stands alone, taken in by every command; what must not leave stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import bigmodel
from bigmodel.errors import StorageError
from bigmodel.runs.manifest import sha256
from bigmodel.runs.sharing.private import Names
from conftest import TINY, Answer, call, is_quiet

FILES = {
    *("README.md", "LICENSES.md", "MANIFEST.json", "croissant.json", "metrics.json", "model.safetensors"),
    *("requirements.txt", "state.json"),
}
CARD = "license: mit\ncontact: somebody@example.org\n"


def share(run: Path, cwd: Path, *words: str, card: str | None = CARD) -> Answer:
    if card is not None:
        (cwd / "card.yaml").write_text(card, encoding="utf-8")
    return call(f"run={run}", "to=mine", *words, cwd=cwd, verb="share")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_run: Answer) -> Path:
    """A folder made of the tiny run. To be read only."""
    cwd = tmp_path_factory.mktemp("shared")
    answer = share(tiny_run.run, cwd)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("mine (0.0 MB): ")
    return cwd / "mine"


def test_every_file_is_in_the_manifest_with_its_size_and_hash(shared: Path) -> None:
    assert {path.name for path in shared.iterdir()} == FILES
    files = json.loads((shared / "MANIFEST.json").read_text())["files"]
    assert {*files} == FILES - {"MANIFEST.json"}
    for name, entry in files.items():
        assert entry == {"size": (shared / name).stat().st_size, "sha256": sha256(shared / name)}
        assert stat.S_IMODE((shared / name).stat().st_mode) & 0o444 == 0o444
    assert [path.name for path in shared.parent.iterdir() if path.name.startswith(".")] == []


def test_the_commands_take_the_folder_and_a_zip_of_it(shared: Path, tiny_run: Answer, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", shared.parent, "mine"))
    whole = call(f"run={tiny_run.run}", "format=json", "device=cpu", cwd=tmp_path, verb="evaluate")
    expected = json.loads(whole.out)["accuracy"]
    tested = json.loads((tiny_run.run / "summary.json").read_text())["test"]["accuracy"]
    for place in (shared, packed):
        answer = call(f"run={place}", "format=json", "device=cpu", cwd=tmp_path, verb="evaluate")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["accuracy"] == expected
        torch.testing.assert_close(
            dict(bigmodel.load(place).model.state_dict()), load_file(shared / "model.safetensors"), rtol=0, atol=0
        )
        answer = call(*TINY, "epochs=0", f"init.from={place}", cwd=tmp_path)
        assert answer.code == 0, answer.err
        assert f"accuracy {tested:.2%}" in answer.out
    output = f"output={tmp_path / 'm.safetensors'}"
    assert call(f"run={shared}", "format=safetensors", output, cwd=tmp_path, verb="export").code == 0


@pytest.mark.parametrize("name", sorted(FILES - {"MANIFEST.json"}))
def test_a_changed_byte_is_refused_before_anything_is_loaded(shared: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(shared, tmp_path / "mine")
    content = bytearray((tmp_path / "mine" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "mine" / name).write_bytes(content)
    (line,) = is_quiet(call("run=mine", "device=cpu", cwd=tmp_path, verb="evaluate"), code=5)
    assert line == f"mine/{name}: its contents are not those that were written (SHA-256 differs)"
    if name == "README.md":
        (line,) = is_quiet(call(*TINY, "init.from=mine", cwd=tmp_path), code=5)
        assert "mine/README.md: its contents" in line


def test_the_card_says_what_is_known_and_nothing_else(shared: Path, tiny_run: Answer) -> None:
    text = (shared / "README.md").read_text(encoding="utf-8")
    summary = json.loads((tiny_run.run / "summary.json").read_text())
    accuracy = summary["test"]["accuracy"]
    assert f"| accuracy | {accuracy:.2%} |" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["library_name"]) == ("mit", "bigmodel-train")
    assert front["pipeline_tag"] == "image-classification"
    assert "| license | cc-by-4.0 |" in text
    assert "somebody@example.org" in text
    assert "Intended use" not in text
    assert not re.search(r"more information|not (yet )?(known|provided)|TODO|\bNone\b|\bnull\b", text, re.IGNORECASE)
    (row,) = (line for line in text.splitlines() if line.startswith("| **3** |"))
    assert [int(cell or 0) for cell in row.split(" | ")[1:-1]] + [
        int(row.split(" | ")[-1].strip(" |") or 0)
    ] == summary["test"]["confusion"][3]
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(text)
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found["accuracy"] == accuracy


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mlcroissant's own parts
def test_the_data_card_is_croissant(shared: Path) -> None:
    card = json.loads((shared / "croissant.json").read_text(encoding="utf-8"))
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert (card["name"], card["license"]) == ("digits", "cc-by-4.0")
    assert card["identifier"].startswith("sha256:")
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    dataset = mlcroissant.Dataset(jsonld=shared / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    assert {"splits/name": "test", "splits/samples": 359} in list(dataset.records("splits"))


def test_the_answers_are_asked_for_once(tiny_run: Answer, tmp_path: Path) -> None:
    (line,) = is_quiet(share(tiny_run.run, tmp_path, card=None), code=2)
    assert line.startswith("card: card.yaml was written: answer license in it")
    (line,) = is_quiet(share(tiny_run.run, tmp_path, card=None), code=2)
    assert line.startswith("card.yaml: license: of the weights, must be answered")
    assert [path.name for path in tmp_path.iterdir()] == ["card.yaml"]


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("license: apach-2.0", "the hub has no license 'apach-2.0'; did you mean apache-2.0?"),
        ("license: unknown", "the hub has no license 'unknown'"),
        ("license: other", "license_name: must be answered"),
        ("license: mit\nlicence: mit", "licence: no such question; did you mean license?"),
        ("license: [mit]", "license: must be a text"),
        ("license: mit\nwatts: many", "watts: must be a number above 0, got many"),
        ("- mit", "holds no answers"),
        ("license: 'mit", "card.yaml"),
    ],
)
def test_a_wrong_answer_is_one_line(tiny_run: Answer, tmp_path: Path, card: str, said: str) -> None:
    (line,) = is_quiet(share(tiny_run.run, tmp_path, card=card), code=2)
    assert said in line
    assert not (tmp_path / "mine").exists()


def test_what_cannot_be_shared_is_one_line(tiny_run: Answer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert is_quiet(share(tiny_run.run, tmp_path), code=2) == ["to: 'mine' exists; name a new folder"]
    (tmp_path / "mine").rmdir()
    assert is_quiet(call("to=mine", cwd=tmp_path, verb="share"), code=2)[0].startswith("run: needs a value")
    assert is_quiet(call("run=x", cwd=tmp_path, verb="share"), code=2)[0].startswith("to: needs a value")
    assert is_quiet(share(Path("nowhere"), tmp_path), code=2)[0].startswith("'nowhere': there is no run or sweep")
    (line,) = is_quiet(share(tiny_run.run, tmp_path, "also=tflite"), code=2)
    assert line == "also: there is no 'tflite'; choices: , onnx"
    shutil.copytree(tiny_run.run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    assert "has saved no checkpoint" in is_quiet(share(tmp_path / "bare", tmp_path), code=2)[0]
    assert not (tmp_path / "mine").exists()


HOME, USER, HOST = "/home/zoe.quist", "zoe.quist", "quistbox"


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user and a machine with names of their own."""
    names = Names(USER, HOST, HOME)
    monkeypatch.setattr(Names, "of_this_machine", lambda allowed=(): Names(USER, HOST, HOME, tuple(allowed)))
    assert names.user == USER


def planted(run: Path, where: Path, change: dict[str, object]) -> Path:
    """A copy of a run whose summary and environment hold something that a card would show."""
    shutil.copytree(run, where)
    for name in ("summary.json", "environment.json"):
        found = json.loads((where / name).read_text())
        (where / name).write_text(json.dumps(found | {key: value for key, value in change.items() if key in found}))
    return where


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": f"cpu of {HOST}"}, "the host's name, 'quistbox'"),
        ({"device": "cpu (zoe.quist's)"}, "the user's name, 'zoe.quist'"),
        ({"device": "cpu, /data/models/x"}, "an absolute path, '/data/models/x'"),
        ({"dataset": f"md5:{HOME}/data"}, "the home directory, '/home/zoe.quist'"),
        ({"versions": {"torch": "2.11", "ghp_0123456789abcdefghij0123": "1"}}, "a secret, 'ghp_01234...'"),
        ({"device": "cpu hunter2hunter2"}, "a secret of this environment"),
    ],
)
def test_what_is_private_is_refused(
    tiny_run: Answer, tmp_path: Path, change: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2hunter2")
    run = planted(tiny_run.run, tmp_path / "run", change)
    (line,) = is_quiet(share(run, tmp_path), code=2)
    assert line.startswith("to: nothing was written, for it would give away ")
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.yaml", "run"]


@pytest.mark.usefixtures("somebody")
def test_paths_of_the_config_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    trained = call(*TINY, f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'outputs'}", cwd=tmp_path)
    assert trained.code == 0, trained.err
    answer = share(trained.run, tmp_path)
    assert answer.code == 0, answer.err
    assert "note: left out: the folders of data_dir, output_dir" in answer.err
    everything = "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "mine").iterdir())
    assert str(tmp_path) not in everything
    assert json.loads((tmp_path / "mine" / "state.json").read_text())["config"]["output_dir"] == "outputs"


@pytest.mark.usefixtures("somebody")
def test_what_may_be_known_is_allowed_by_name(tiny_run: Answer, tmp_path: Path) -> None:
    run = planted(tiny_run.run, tmp_path / "run", {"device": f"cpu of {HOST}"})
    answer = share(run, tmp_path, f"allow=[{HOST}]", card=f"license: mit\ncontact: {USER}@example.org\n")
    assert answer.code == 0, answer.err
    assert HOST in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/etc/passwd", 0),
        ("../out", 0),
        ("mine/../../out", 0),
        ("mine\\out", 0),
        ("mine/state.json", stat.S_IFLNK),
        ("mine/state.json", stat.S_IFIFO),
        ("other/state.json", 0),
    ],
)
def test_a_hostile_zip_is_one_line(shared: Path, tmp_path: Path, name: str, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(shared.iterdir()):
            if path.name != "state.json":
                archive.write(path, f"mine/{path.name}")
        member = zipfile.ZipInfo(name)
        member.external_attr = (kind | 0o644) << 16
        archive.writestr(member, b"/etc/passwd")
    (line,) = is_quiet(call("run=a.zip", "device=cpu", cwd=tmp_path, verb="evaluate"), code=5)
    assert line.startswith("a.zip: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_that_is_none_or_lies_about_its_size(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no archive")
    assert "is damaged, or no zip archive" in is_quiet(call("run=a.zip", cwd=tmp_path, verb="evaluate"), code=5)[0]
    packed = Path(shutil.make_archive(str(tmp_path / "b"), "zip", shared.parent, "mine"))
    packed.write_bytes(packed.read_bytes()[:-200])
    assert "is damaged, or no zip archive" in is_quiet(call("run=b.zip", cwd=tmp_path, verb="evaluate"), code=5)[0]
    many = tmp_path / "c.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for index in range(1001):
            archive.writestr(f"m/{index}", b"")
    assert "holds 1001 files" in is_quiet(call("run=c.zip", cwd=tmp_path, verb="evaluate"), code=5)[0]


def test_a_full_disk_leaves_nothing(tiny_run: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from bigmodel.runs.sharing import folder

    def full(*words: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "write_manifest", full)
    (tmp_path / "card.yaml").write_text(CARD)
    answer = call(f"run={tiny_run.run}", "to=new/place/mine", cwd=tmp_path, verb="share")
    (line,) = is_quiet(answer, code=5)
    assert line == "new/place/mine: cannot be written: No space left on device; set to=..."
    assert [path.name for path in tmp_path.iterdir()] == ["card.yaml"]


def keys(where: Path, name: str) -> tuple[Path, Path]:
    """A private key and its public key, as files."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (where / f"{name}.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (where / f"{name}.pub").write_bytes(public)
    return where / f"{name}.pem", where / f"{name}.pub"


def test_a_signature_is_checked_by_the_key_that_is_trusted(
    tiny_run: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    private, public = keys(tmp_path, "own")
    answer = share(tiny_run.run, tmp_path, f"sign={private}")
    assert answer.code == 0, answer.err
    (line,) = bigmodel.load(tmp_path / "mine").warnings
    assert "is signed; set BIGMODEL_SIGNED_BY=KEY.pub" in line
    monkeypatch.setenv("BIGMODEL_SIGNED_BY", str(public))
    assert bigmodel.load(tmp_path / "mine").warnings == ()
    shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path, "mine")
    assert bigmodel.load(tmp_path / "mine.zip").warnings == ()
    manifest = tmp_path / "mine" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"step"', ' "step"'))  # as one does who forges the hashes
    with pytest.raises(StorageError, match=r"mine: is not what .*own.pub has signed"):
        bigmodel.load(tmp_path / "mine")
    monkeypatch.setenv("BIGMODEL_SIGNED_BY", str(keys(tmp_path, "other")[1]))
    with pytest.raises(StorageError, match=r"mine.zip: is not what .*other.pub has signed"):
        bigmodel.load(tmp_path / "mine.zip")
    (tmp_path / "mine" / "model.sig").unlink()
    with pytest.raises(StorageError, match="is not signed, and BIGMODEL_SIGNED_BY names a key"):
        bigmodel.load(tmp_path / "mine")


def test_signing_needs_the_package_and_a_key(tiny_run: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigmodel.runs import signature

    monkeypatch.setattr(signature.importlib.util, "find_spec", lambda name: None)
    (line,) = is_quiet(share(tiny_run.run, tmp_path, "sign=x.pem"), code=2)
    assert line == "sign: needs model-signing; pip install 'bigmodel-train[sign]'"
    monkeypatch.setattr(signature.importlib.util, "find_spec", lambda name: True)
    (line,) = is_quiet(share(tiny_run.run, tmp_path, "sign=x.pem"), code=2)
    assert line.startswith("sign: there is no file 'x.pem'")


@pytest.mark.slow
def test_onnx_goes_along_and_names_no_file_of_this_machine(tiny_run: Answer, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    answer = share(tiny_run.run, tmp_path, "also=onnx")
    assert answer.code == 0, answer.err
    files = {path.name for path in (tmp_path / "mine").iterdir()}
    assert files == FILES | {"model.onnx", "model.onnx.json"}
    assert {*json.loads((tmp_path / "mine" / "MANIFEST.json").read_text())["files"]} == files - {"MANIFEST.json"}
    assert b"/bigmodel/models" not in (tmp_path / "mine" / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(tmp_path / "mine" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["logits"]


def test_a_shared_folder_is_merged_into_a_run(cli, shared: Path, tiny_run: Answer) -> None:
    (line,) = is_quiet(cli(f"runs=[{shared},{tiny_run.run}]", "device=cpu", verb="merge"), code=2)
    assert line == f"runs: {shared} has no config.yaml, as a folder that was shared; name a run before it"
