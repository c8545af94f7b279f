"""Hydra's grammar on the command line: all of it, what it lacks, and commands that are printed to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bigmodel.commands.command_line import parse as parse_words
from bigmodel.config.composition import ConfigSource, compose, config_loader
from bigmodel.config.location import conf_directory
from bigmodel.config.override_parser import format_value, parse_override, swept_values
from bigmodel.errors import ConfigError
from bigmodel.quoting import make_readable, path_override, resume_command, shell_command
from conftest import Answer, is_quiet

SOURCE = ConfigSource((conf_directory(),), "train")
SWEEPS = {
    "optim=glob(*)": ["adam", "adamw", "muon", "muon_sgd", "sgd"],
    "optim=glob([a*,s*],exclude=adam)": ["adamw", "sgd"],
    "optim=glob(*,exclude=[a*,m*])": ["sgd"],
    "optim=sgd,adam": ["sgd", "adam"],
    "seed=range(1,7,2)": ["1", "3", "5"],
    "seed=sort(3,1,2)": ["1", "2", "3"],
    "seed=sort(range(1,4),reverse=true)": ["3", "2", "1"],
    "seed=int(choice(1.0,'2'))": ["1", "2"],
    "optim.lr=float(range(1,3))": ["1.0", "2.0"],
    "optim.lr=tag(coarse,choice(0.1,0.2))": ["0.1", "0.2"],
    "monitor=str(choice(a,'b c',1,true))": ["a", "b\\ c", "'1'", "'true'"],
    "data_dir=choice('a,b',\"c d\",it\\ is,好)": ["a\\,b", "c\\ d", "it\\ is", "'好'"],
    'data_dir=choice("it\'s",\'say "x"\')': ["'it\\'s'", "'say \"x\"'"],
    "model.hidden=[1],[2,3],[]": ["[1]", "[2,3]", "[]"],
    "optim={lr: 0.1},{lr: 0.2}": ["{lr:0.1}", "{lr:0.2}"],
    "data_dir=好,坏": ["'好'", "'坏'"],
}


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with config_loader(SOURCE) as opened:
        yield opened


@pytest.fixture(scope="module")
def read(loader: ConfigLoader) -> Callable[[str], list[str]]:
    """The values of an override as words, as the command line takes it."""
    return lambda text: swept_values(parse_override(make_readable(text), loader), None)


@pytest.mark.parametrize(("text", "expected"), SWEEPS.items(), ids=SWEEPS.keys())
def test_every_way_to_write_a_sweep(read: Callable[[str], list[str]], text: str, expected: list[str]) -> None:
    found = read(text)
    assert [word.partition("=")[2] for word in found] == expected
    for word in found:  # each is an override by itself, and stands for nothing else
        assert read(word) == [word]


def test_shuffled_values_are_the_same_values(read: Callable[[str], list[str]]) -> None:
    assert sorted(read("seed=shuffle(range(0,20))")) == sorted(f"seed={n}" for n in range(20))


def test_a_sweep_over_the_files_of_a_group(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", "optim=glob(a*)", "model=glob([m*p,c*])", "dry_run=true")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("4 jobs")
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [
        f"optim={optim} model={model}" for optim in ("adam", "adamw") for model in ("cnn", "mlp")
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "optim=glob(x*)"], "optim=glob(x*): there is no value in it"),
        (["-m", "seed=nope(1,2)"], "seed=nope(1,2): unknown function 'nope'"),
        (["-m", "seed=choice("], "seed=choice(: cannot be parsed"),
        (["-m", "optim.lr=interval(0.1,1)"], "add hydra/sweeper=optuna"),
        (["optim=glob(a*)"], "optim: several values need a sweep: add -m"),
        (["dataset.val_fraction=好"], "dataset.val_fraction: must be a finite number, not '好'"),
        (["名=好"], "名='好': cannot be parsed"),
        (['monitor=a"b'], "quote spaces and commas: 'key=\"some text\"'"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(cli: Callable[..., Answer], words: Sequence[str], says: str) -> None:
    (line,) = is_quiet(cli(*words), code=2)
    assert says in line
    assert "token" not in line, "a lexer's words"


def test_scripts_of_all_kinds_and_quoted_keys_just_work() -> None:
    words = ["data_dir=数据", "monitor=точность/好 坏", "lr_scale={\"*\": 0.1, 'head[0].*': 10}", "output_dir=ü/\\,x"]
    tree = compose("train", parse_words(words).overrides, SOURCE).values
    assert tree["data_dir"] == "数据"
    assert tree["monitor"] == "точность/好 坏"
    assert tree["lr_scale"] == {"*": 0.1, "head[0].*": 10}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=[好,'坏',b]", "a=['好','坏',b]"),
        ("a={k: 好, l: [é]}", "a={k: '好', l: ['é']}"),
        ("a=choice(好, b)", "a=choice('好', b)"),
        ("a=glob(好*, exclude=é)", "a=glob('好*', exclude='é')"),
        ("a=${oc.env:X}好", "a='${oc.env:X}好'"),
        ("a=it's 好", "a='it\\'s 好'"),
        ('a={"x y": 1}', "a={x\\ y: 1}"),
        ("a=[1,2]", "a=[1,2]"),
        ("a='b,c'", "a='b,c'"),
        ("a=${b},好", "a=${b},'好'"),
        ("a", "a"),
    ],
)
def test_what_the_grammar_lacks_is_put_into_its_words(text: str, expected: str) -> None:
    assert make_readable(text) == expected


PATHS = st.text(st.sampled_from("ab'\"\\${}[]()<>&;|*?~#!=,:. @好é\n\t-/"), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(PATHS)
@example("???")
@example("null")
@example("1,2")
@example("${oc.env:HOME}")
@example("a\\")
@example("it's")
def test_a_printed_path_comes_back_through_shell_and_hydra(loader: ConfigLoader, path: str) -> None:
    (word,) = shlex.split(shell_command(path_override("output_dir", path)))
    (override,) = parse_words([word]).overrides
    config = OmegaConf.create({})
    OmegaConf.update(config, "output_dir", parse_override(override, loader).value())
    assert Path(str(config.output_dir)) == Path(path)


@settings(max_examples=100, deadline=None)
@given(PATHS, st.booleans())
def test_a_printed_resume_comes_back_through_the_shell(path: str, multirun: bool) -> None:
    program, *words = shlex.split(resume_command(path, ["a.b", "env:X"], "epochs=N", multirun=multirun))
    parsed = parse_words([word for word in words if word != "epochs=N"])
    assert (program, parsed.resume, parsed.trust, parsed.multirun) == (
        "bigmodel-train",
        path,
        ["a.b", "env:X"],
        multirun,
    )


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=8) | st.integers() | st.booleans() | st.lists(st.integers() | st.text("ab好 ", max_size=3)))
def test_a_value_is_shown_as_it_is_read(loader: ConfigLoader, value: object) -> None:
    first = next(iter(parse_override(f"a=choice({format_value(value)},1)", loader).sweep_iterator()))
    text = getattr(first, "text", first)
    plain = [getattr(item, "text", item) for item in text] if isinstance(text, list) else text
    assert str(plain).strip() == str(value).strip()


def test_the_words_of_a_command_line_are_told_apart() -> None:
    line = parse_words(["-m", "optim.lr=1,2", "+hydra.launcher.x=1", "hydra/sweeper=optuna", "jobs=2", "trust=[a,b]"])
    assert (line.overrides, line.hydra_overrides) == (["optim.lr=1,2"], ["+hydra.launcher.x=1", "hydra/sweeper=optuna"])
    assert (line.sweep, line.trust, line.multirun) == ({"jobs": "2"}, ["a", "b"], True)
    assert parse_words(["--completion", "zsh"]).completion == "zsh"
    with pytest.raises(ConfigError) as refused:
        parse_words(["resume=x", "seeds=2", f"seed={'1' * 9000}", "hydra.run.dir=x", "--bar"], "evaluate")
    assert [text.partition(": ")[2] for text in refused.value.lines] == [
        *["no such setting; bigmodel-train takes it"] * 2,
        "no such flag; see --help",
        "9005 characters; at most 8192",
        "has no effect here; output_dir=DIR says where runs go",
    ]


def test_a_key_that_was_taken_out_is_as_in_a_config_without_it(cli: Callable[..., Answer]) -> None:
    answer = cli("~device.precision=fp32", "device=cpu", "model=mlp", "dry_run=true")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("word", ["resume=a\0b", "data_dir=\0", "optim.lr=\0"])
def test_a_null_byte_is_refused(cli: Callable[..., Answer], word: str) -> None:
    assert "holds a null byte" in is_quiet(cli(word), code=2)[0]


def test_a_key_that_is_given_twice_is_said(cli: Callable[..., Answer], tmp_path: Path) -> None:
    words = ("optim.lr=0.1", "seed=3", "++optim.lr=0.2", "model=mlp", "model=cnn", "seed=4", "seed=5")
    assert [line for line in compose("train", words, SOURCE).notes if "given" in line] == [
        "optim.lr is given twice; 0.2 counts",
        "seed is given 3 times; 5 counts",
        "model is given twice; cnn counts",
    ]
    assert not compose("train", ["optim=sgd", "optim.lr=0.1", "seed=1"], SOURCE).notes
    answer = cli("-m", "optim.lr=0.1", "optim.lr=0.2", "seed=1,2", "dry_run=true", "jobs=1", "jobs=2")
    assert answer.out.splitlines()[0] == "optim.lr is given twice; 0.2 counts"
    assert answer.err.splitlines() == ["note: jobs is given twice; 2 counts"]
    twice = cli("run=a", "run=b", cwd=tmp_path, verb="report")
    assert twice.err.splitlines()[0] == "note: run is given twice; b counts"


@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"]])
def test_keys_inside_of_braces_are_checked_as_those_outside(cli: Callable[..., Answer], words: list[str]) -> None:
    given = ("model={a:1}", "optim={lr:0.1,lrr:0.2}", "init={lora:{rnk:2}}", "+optim.lr=0.2")
    lines = is_quiet(cli(*words, *given), code=2)
    assert lines[0].startswith("model.a: no such setting; choices: channels, ")
    assert lines[1:] == [
        "optim.lrr: no such setting; did you mean optim.lr?",
        "init.lora.rnk: no such setting; did you mean init.lora.rank?",
        "optim.lr: is there already; leave out the +",
    ]
