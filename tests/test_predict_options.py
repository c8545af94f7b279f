"""A processor declares its options in one place; the YAML, the documentation and every check go by it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from omegaconf import OmegaConf

from bigmodel.config.schema import processor_options as given_options
from bigmodel.constraints import Bounds, PositiveInt, Seed
from bigmodel.errors import ConfigError
from bigmodel.inference.options import build_options, option_names
from bigmodel.inference.processors.spoken import SpeechSynthesisProcessor
from bigmodel.inference.processors.tables import TableProcessor
from bigmodel.interfaces import NoOptions
from conftest import Answer, is_quiet

ROOT = Path(__file__).parents[1]
PROCESSORS = ROOT / "src" / "bigmodel" / "inference" / "processors"


def processor_options() -> dict[str, type[Any]]:
    """The `Options` of every built-in processor, by class name."""
    found = {}
    for file in PROCESSORS.glob("*.py"):
        module = importlib.import_module(f"bigmodel.inference.processors.{file.stem}")
        for name in getattr(module, "__all__", ()):
            if name.endswith("Processor"):
                found[name] = getattr(module, name).Options
    return found


def test_every_processor_declares_frozen_options_with_defaults() -> None:
    assert len(processor_options()) > 10
    for options in processor_options().values():
        assert is_dataclass(options)
        assert options() == options()
        assert hash(options()) == hash(options())  # frozen


def test_the_yaml_has_every_option_without_a_value() -> None:
    known = {name for options in processor_options().values() for name in option_names(options)}
    root = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "predict.yaml"))
    assert isinstance(root, dict)
    given = given_options({key: value for key, value in root.items() if key not in ("defaults", "hydra")})
    assert given == {}
    text = (ROOT / "conf" / "predict.yaml").read_text(encoding="utf-8")
    assert {name.rpartition(".")[2] for name in known} <= set(re.findall(r"(?m)^ *(\w+): null\b", text))


def test_the_defaults_in_the_comments_are_those_of_the_processors() -> None:
    nothing = {"stop": "none"}
    text = (ROOT / "conf" / "predict.yaml").read_text(encoding="utf-8")
    for options in processor_options().values():
        for one in fields(options):
            value = getattr(options(), one.name)
            for name, default in [(one.name, value)] if not is_dataclass(value) else vars(value).items():
                comment = re.search(rf"(?m)^ *{name}: null +# .*\((\w+)\)", text)
                assert comment is not None, name
                shown = nothing.get(name, "all") if default is None else default
                assert comment[1] == (f"{shown:g}" if shown != str(shown) else shown)


def test_the_documentation_lists_the_options_of_each_processor() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `(\w+Processor)`.*?\| ([^|]*) \|$", page))
    assert rows == {
        name: ", ".join(f"`{option}`" for option in option_names(options)) or "none"
        for name, options in processor_options().items()
    }


@dataclass(frozen=True)
class Draws:
    seed: Seed = 0
    share: Annotated[float, Bounds(above=0, at_most=1)] | None = None


@dataclass(frozen=True)
class Options:
    width: PositiveInt = 8
    folder: str = "here"
    draws: Draws = field(default_factory=Draws)

    def __post_init__(self) -> None:
        if self.width == 13:
            raise ValueError("width: 13 is unlucky")


def test_options_that_are_not_given_keep_their_defaults() -> None:
    assert build_options(Options, {}, "this") == Options()
    assert build_options(Options, {"draws": None}, "this") == Options()
    built = build_options(Options, {"draws": {"share": 0.5}, "width": 2}, "this")
    assert built == Options(width=2, draws=Draws(share=0.5))
    assert build_options(Options, {"draws": Draws(seed=4)}, "this").draws.seed == 4


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"widht": 3}, "widht: no such setting; did you mean width?"),
        ({"beam": 3}, "beam: this has no such option; it has width, folder, draws.seed, draws.share"),
        ({"width": 0}, "width: must be a number at least 1, not 0"),
        ({"width": "3"}, "width: must be a whole number, not '3'"),
        ({"folder": None}, "folder: must be a text, not null"),
        ({"draws": 5}, "draws: must be a group of settings, not 5"),
        ({"draws": {"sede": 5}}, "draws.sede: no such setting; did you mean draws.seed?"),
        ({"draws": {"seed": -1}}, "draws.seed: must be a number at least 0 and below 9.22337e+18, not -1"),
        ({"draws": {"share": 2.0}}, "draws.share: must be a number above 0 and at most 1 or null, not 2.0"),
        ({"draws": {"beam": 2}}, "draws.beam: this has no such option; it has draws.seed, draws.share"),
        ({"width": 13}, "width: 13 is unlucky"),
    ],
)
def test_a_wrong_option_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_options(Options, given, "this")
    assert error.value.lines == (line,)


def test_all_mistakes_are_told_at_once_and_texts_are_numbers_where_they_are_parsed() -> None:
    with pytest.raises(ConfigError) as error:
        build_options(Options, {"width": -1, "beam": 1, "draws": {"seed": 0.5}}, "this")
    assert len(error.value.lines) == 3
    given = {"width": "3", "folder": "7", "draws": {"seed": "5"}}
    assert build_options(Options, given, "this", parse_texts=True) == Options(3, "7", Draws(5))


def test_a_processor_without_options_says_so_and_a_spoken_text_has_no_length() -> None:
    with pytest.raises(ConfigError, match="top: this has no such option; it has none"):
        build_options(NoOptions, {"top": 3}, "this")
    with pytest.raises(ConfigError, match=r"sample\.max_new_tokens: this has no such option; it has sample\.temp"):
        build_options(SpeechSynthesisProcessor.Options, {"sample": {"max_new_tokens": 3}}, "this")


def test_a_table_of_numbers_has_no_classes_to_rank() -> None:
    arguments = (["a"], [0.0], [1.0], {}, "y", None, None, None, " ", [""])
    assert TableProcessor(*arguments, classes=["no", "yes"]).Options().top == 3
    assert TableProcessor(*arguments).Options is NoOptions


OLD = Path(__file__).with_name("old_runs")
CASES = {
    ("digits", "beam=4"): "beam: this run's ImageClassificationProcessor has no such option; it has top",
    ("digits", "top=0"): "top: must be a number at least 1 or null, not 0",
    ("digits", "sample.seed=1"): "sample: this run's ImageClassificationProcessor has no such option; it has top",
    ("digits", "+tops=1"): "tops: no such setting; did you mean top?",
    ("text", "top=2"): "top: this run's TextGenerationProcessor has no such option; it has sample.temperature, ",
    ("text", "sample.top_p=2"): "sample.top_p: must be a number above 0 and at most 1 or null, not 2",
}


@pytest.mark.parametrize(("run", "word"), CASES)
def test_the_command_refuses_what_the_run_does_not_have(
    run: str, word: str, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = cli(f"run={OLD / run}", "input=a", "device=cpu", word, cwd=tmp_path, verb="predict")
    (line,) = is_quiet(answer, code=2)
    assert CASES[run, word] in line


def test_null_and_the_default_answer_alike(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"run={OLD / 'text'}", "input=the cat", "device=cpu", "format=json")
    first = cli(*words, "sample.temperature=0", "sample.max_new_tokens=5", cwd=tmp_path, verb="predict")
    assert first.code == 0, first.err
    monkeypatch.setenv("MOST", "5")
    same = ("top=null", "sample.seed=null", "sample.temperature=0", "sample.max_new_tokens=${oc.env:MOST}")
    assert cli(*words, *same, "trust=[oc.env:MOST]", cwd=tmp_path, verb="predict").out == first.out
