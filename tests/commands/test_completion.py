"""Shell completion: what follows on a line, in the real shells, and nothing of it is executed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import is_quiet, python
from keyboard import terminal

RUN = "outputs/2026-11-24/10-00-00-aaaa"
HOSTILE = "$(touch made); `touch made`"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with runs, a sweep, a user's YAML, and files whose names need quotes."""
    runs = (RUN, "outputs/2026-11-25/11-00-00-bbbb", "outputs/2026-11-25/12-00-00-cccc")
    for path in (*runs, "outputs/sweeps/2026-11-25_10-00-00-eeee/0", "outputs/sweeps/2026-11-25_10-00-00-eeee/1"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.yaml").touch()
    (tmp_path / "outputs/sweeps/2026-11-25_10-00-00-eeee/sweep.json").touch()
    own = tmp_path / "own conf" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# A net of mine.\n_target_: my_parts.net.Net\nsize: 3  # how large\n")
    (tmp_path / "my data").mkdir()
    for name in ("a b.png", "it's.png", HOSTILE, "two\nlines.png"):
        (tmp_path / "my data" / name).touch()
    return tmp_path


@pytest.fixture
def follows(cli, folder):
    """The words that could stand at the end of a line, as fish is told them."""

    def words(line: str) -> list[str]:
        answer = cli("--complete", "fish", line, cwd=folder)
        assert (answer.code, answer.err) == (0, "")
        return [found.partition("\t")[0] for found in answer.out.splitlines() if found]

    return words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bigmodel-train mo", ["model=", "monitor="]),
        ("bigmodel-train model=res", ["model=resnet18", "model=resnet_cifar"]),
        ("bigmodel-train model=gpt model.wi", ["model.width=", "model.window="]),
        ("bigmodel-train model.ch", ["model.channels="]),  # of the default
        ("bigmodel-train optim=adam optim.b", ["optim.betas="]),
        ("bigmodel-train experiment=trec_bert model.he", ["model.heads="]),  # of the one that the experiment chooses
        ("bigmodel-train experiment=trec_bert model=gpt model.ti", ["model.tie_embeddings="]),
        ("bigmodel-train init.lora.r", ["init.lora.rank=", "init.lora.rank_stabilized="]),
        ("bigmodel-train optim.nesterov=", ["optim.nesterov=true", "optim.nesterov=false"]),
        ("bigmodel-train sampler=", ["sampler=shuffled", "sampler=balanced"]),
        ("bigmodel-train optim.momentum=", ["optim.momentum=0.9"]),
        ("bigmodel-train -m model=mlp,gp", ["model=mlp,gpt"]),
        ("bigmodel-train listeners=[console,c", ["listeners=[console,csv"]),
        ("bigmodel-train ~los", ["~loss="]),
        ("bigmodel-train hydra/launcher=s", ["hydra/launcher=slurm"]),
        ("bigmodel-train -m on_failure=", ["on_failure=continue", "on_failure=stop", "on_failure=retry"]),
        ("bigmodel-train --completion ", ["bash", "zsh", "fish"]),
        ("bigmodel-train --config-dir o", ["own conf/", "outputs/"]),
        ("bigmodel-train --config-dir 'own conf' model=mi", ["model=mine"]),
        ('bigmodel-train --config-dir="own conf" model=mine model.', ["model.size="]),
        ("bigmodel-train resume=", [f"resume=outputs/{name}/" for name in ("2026-11-24", "2026-11-25", "sweeps")]),
        ("bigmodel-train resume=outputs/2026-11-24", [f"resume={RUN}"]),
        ("bigmodel-predict run=outputs/2026-11-24/", [f"run={RUN}"]),
        ("bigmodel-predict run=[x,outputs/2026-11-24/", [f"run=[x,{RUN}"]),
        ("bigmodel-predict sample.to", ["sample.top_k=", "sample.top_p="]),
        ("bigmodel-predict input=my\\ data/a", ["input=my data/a b.png"]),
        ("bigmodel-train data_dir=", ["data_dir=my data/", "data_dir=outputs/", "data_dir=own conf/"]),
        ("bigmodel-evaluate tr", ["trust="]),
        ("bigmodel-evaluate split=", ["split=train", "split=val", "split=test"]),
        ("bigmodel-export format=o", ["format=onnx"]),
        ("bigmodel-compare f", ["format=", "force="]),
        ("bigmodel-compare outputs/sweeps/", ["outputs/sweeps/2026-11-25_10-00-00-eeee/"]),
        ("bigmodel-runs format=", ["format=table", "format=json"]),
        ("some/where/bigmodel-train model=gp", ["model=gpt"]),
        ("bigmodel-train model=nothing", []),
        ("bigmodel-train nothing.", []),
        ("bigmodel-nothing mo", []),
        ("", []),
    ],
)
def test_what_could_follow(follows, line, words):
    assert sorted(follows(line)) == sorted(words)


def test_what_a_file_brings_along_is_known(follows, folder):
    own = folder / "own conf"
    (own / "dataset").mkdir()
    (own / "dataset" / "texts.yaml").write_text("goes_with: {model: gpt, optim: adam}\n_target_: my_parts.texts\n")
    (own / "model" / "wide.yaml").write_text("defaults: [mine, _self_]\nextra: 1\n")
    ask = "bigmodel-train --config-dir 'own conf' dataset=texts "
    assert follows(f"{ask}model.ti") == ["model.tie_embeddings="]
    assert follows(f"{ask}optim=sgd optim.ne") == ["optim.nesterov="]
    assert follows(f"{ask}dataset.") == []
    assert sorted(follows(f"{ask}model=wide model.")) == ["model.extra=", "model.size="]


def test_each_choice_and_key_says_what_it_is(cli, folder):
    answer = cli("--complete", "zsh", "bigmodel-train --config-dir 'own conf' model=mine model.", cwd=folder)
    assert answer.out == "+model.size=\thow large\n"


def test_bash_gets_the_rest_of_a_word_quoted_as_it_was_begun(cli, folder):
    def rest(line: str, part: str) -> list[str]:
        return cli("--complete", "bash", line, part, cwd=folder).out.splitlines()

    assert rest("bigmodel-train model=gp", "gp") == [" gpt"]
    assert rest("bigmodel-train model=gp", "model=gp") == [" model=gpt"]  # where `=` breaks no words
    assert rest("bigmodel-predict input=my\\ data/i", "my\\ data/i") == [" my\\ data/it\\'s.png"]
    assert rest('bigmodel-predict input="my data/i', "my data/i") == [" my data/it's.png"]
    assert rest("bigmodel-predict input='my data/i", "my data/i") == []  # no quote can stand in such quotes
    assert rest('bigmodel-predict input="my data/$', "my data/$") == [" my data/\\$(touch made); \\`touch made\\`"]


def test_a_name_that_breaks_lines_is_left_out(follows):
    assert not [word for word in follows("bigmodel-predict input=my\\ data/") if "two" in word]


def test_hostile_yaml_does_nothing(follows, folder):
    own = folder / "own conf"
    (own / "model" / f"{HOSTILE}.yaml").touch()
    (own / "model" / "object.yaml").write_text("a: !!python/object/apply:os.system ['touch made']\n")
    (own / "model" / "bomb.yaml").write_text("a: &a [1,1]\n" + "".join(f"k{i}: &k{i} [*a,*a]\n" for i in range(20_000)))
    (own / "model" / "itself.yaml").write_text("defaults: [itself, {override /model: itself}]\na: &a {b: *a}\n")
    (own / "model" / "foreign.yaml").write_text("_target_: bigmodel.nothing.at.all\nx: 1\n\x1b[2J: 2\n")
    os.mkfifo(own / "model" / "pipe.yaml")
    assert follows("bigmodel-train --config-dir 'own conf' model=pi") == ["model=pipe"]
    assert [word for word in follows("bigmodel-train --config-dir 'own conf' model=") if "touch" in word] == []
    for name in ("object", "bomb", "itself", "pipe"):
        assert follows(f"bigmodel-train --config-dir 'own conf' model={name} model.") == []
    assert follows("bigmodel-train --config-dir 'own conf' model=foreign model.x=") == []
    assert not list(folder.rglob("made"))


def test_an_unknown_shell_is_refused(cli):
    assert is_quiet(cli("--completion", "tcsh"), code=2) == [
        "--completion: there is no shell 'tcsh'; choices: bash, zsh, fish"
    ]


def test_nothing_heavy_is_imported(tmp_path):
    ask = (
        "import sys; from bigmodel.commands.completion.answer import answer; "
        "print([*answer('fish', 'bigmodel-train model=gpt model.w')], [*answer('fish', 'bigmodel-train sampler=')]); "
        "sys.exit(str({'torch', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    answer = python("-c", ask, cwd=tmp_path)
    assert (answer.stderr.strip(), answer.stdout.count("sampler=")) == ("set()", 2)


SHELLS = {  # how each starts without a user's files, and evaluates the script
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'PS1=; eval "$({} --completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'PS1=; eval "$({} --completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "{} --completion fish | source"),
}
LINES = {  # what is typed before TAB, and the words that would be run afterwards
    "bigmodel-train model=gp": "bigmodel-train|model=gpt",
    "bigmodel-train mod": "bigmodel-train|model=",
    "bigmodel-predict input=my": "bigmodel-predict|input=my data/",
    "bigmodel-predict input='my data/a": "bigmodel-predict|input=my data/a b.png",
    "bigmodel-predict input=my\\ data/i": "bigmodel-predict|input=my data/it's.png",
    "bigmodel-predict input=my\\ data/\\$": f"bigmodel-predict|input=my data/{HOSTILE}",
    "bigmodel-train resume=outputs/2026-11-24": f"bigmodel-train|resume={RUN}",
    "bigmodel-train --config-dir 'own conf' model=mi": "bigmodel-train|--config-dir|own conf|model=mine",
}
ASK = f"{sys.executable} -P -m bigmodel train"


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("bash", [*LINES][:1]),
        *(pytest.param(shell, [*LINES], marks=pytest.mark.slow) for shell in ("bash", "zsh", "fish")),
    ],
)
def test_in_a_real_shell(shell, lines, folder):
    """Press TAB, then put a command before the line that prints its words."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (folder / "bigmodel").mkdir()
    for name in ("bigmodel/__init__.py", "yaml.py", "sitecustomize.py"):  # none of which is imported
        (folder / name).write_text("open('made', 'w')\n")
    command, evaluate = SHELLS[shell]
    with terminal(command, folder) as typed:
        typed.type(evaluate.format(ASK) + "; echo rea''dy\n")
        typed.wait_for("ready")
        for line in lines:
            typed.type(f"{line}\t")
            typed.type("\x01printf '{%s}' \x05 end\n")
            found = typed.wait_for(r"(?s)\{(bigmodel[^%]*)\}\{end\}")
            assert found[1].replace("}{", "|") == LINES[line]
        for line in ("bigmodel-train $(touch made) model=gp", "bigmodel-runs $(touch made) format=j"):
            typed.type(f"{line}\t")
            typed.type("\x01printf '{%s}' '\x05'\n")  # in quotes, so that the shell does not run it
            assert re.search(r"\(touch made\) (model=gpt|format=json)", typed.wait_for(r"\{bigmodel[^%]*\}")[0])
    assert not (folder / "made").exists()
