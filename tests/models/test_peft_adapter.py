"""LoRA matrices as the PEFT library keeps them: read as it reads them, written so that it reads them, or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bigmodel.errors import ConfigError
from bigmodel.inference.predictor import load
from bigmodel.models.weights.open_weights import read_open_tensors
from bigmodel.models.weights.peft_adapter import read_adapter
from conftest import Answer, call, is_quiet
from models.test_llama import CONFIG, folder
from models.test_open_weights import FAMILIES, loaded

TEXT = "abcdefghijklmnopqrst" * 40
TUNED = (
    *("dataset=text", "dataset.path=t.txt", "dataset.tokenizer=char", "dataset.context=16", "device=cpu"),
    *("init.lora.rank=3", "init.lora.dropout=0.1", "init.lora.rank_stabilized=true", "optim.lr=0.05", "batch_size=16"),
    *("epochs=1", "limit_batches=3", "listeners=[]", "model.vocab_size=23"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A run that tuned a published folder, `base`, by LoRA."""
    here = tmp_path_factory.mktemp("peft")
    folder(here / "base", CONFIG)
    (here / "t.txt").write_text(TEXT + "xyz")  # 23 characters
    answer = call(*TUNED, "model=gpt", "init.from=base", cwd=here)
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture(scope="module")
def written(run: Answer) -> Path:
    answer = call(f"run={run.run}", "format=peft", "output=adapter", cwd=run.cwd, verb="export")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("adapter: 15 layers of rank 3, added to the base its weights differ by at most ")
    return run.cwd / "adapter"


def test_what_was_written_is_what_was_trained(run: Answer, written: Path) -> None:
    words = ("init.from=base", "init.adapter=adapter", "epochs=0", "output_dir=tuned")
    tuned = call(*TUNED[:5], "model=gpt", *words, cwd=run.cwd)
    assert tuned.code == 0, tuned.err
    assert "init.adapter=adapter: added to 15 layers" in tuned.out
    (tuned_run,) = run.cwd.glob("tuned/*/*")
    first, second = load(str(run.run)).model, load(str(tuned_run)).model
    tokens_NT = torch.arange(20).view(2, 10)
    base = loaded(run.cwd / "base")[0]
    with torch.inference_mode():
        torch.testing.assert_close(second(tokens_NT), first(tokens_NT), atol=1e-5, rtol=1e-5)
        assert (base(tokens_NT) - first(tokens_NT)).abs().max() > 1e-3
    config = json.loads((written / "adapter_config.json").read_text())
    assert (config["r"], config["use_rslora"], config["lora_dropout"]) == (3, True, 0.1)
    assert config["base_model_name_or_path"] == "base"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_peft_reads_what_was_written(run: Answer, written: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(run.cwd / "base", attn_implementation="eager")
    theirs = peft.PeftModel.from_pretrained(base, written).eval()
    tokens_NT = torch.arange(20).view(2, 10)
    with torch.inference_mode():
        expected = theirs(tokens_NT).logits
        torch.testing.assert_close(load(str(run.run)).model(tokens_NT), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("family", ["llama 3", "smollm2", "qwen2", "gpt2"])
@pytest.mark.parametrize("stabilized", [False, True])
def test_an_adapter_of_peft_is_read(family: str, stabilized: bool, tmp_path: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**FAMILIES[family])
    base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    base.save_pretrained(tmp_path / "base")
    layers = ["c_attn", "c_proj"] if family == "gpt2" else ["q_proj", "v_proj", "up_proj", "o_proj"]
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 7, "target_modules": layers, "use_rslora": stabilized}
    adapted = peft.get_peft_model(base, peft.LoraConfig(**settings, fan_in_fan_out=family == "gpt2")).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    ours, lines = loaded(tmp_path / "base", adapter=str(tmp_path / "adapter"))
    assert any(line.startswith(f"init.adapter={tmp_path / 'adapter'}: added to ") for line in lines)
    tokens_NT = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = adapted(tokens_NT).logits
        torch.testing.assert_close(ours(tokens_NT), expected, atol=1e-3, rtol=1e-4)
        with adapted.disable_adapter():
            assert (adapted(tokens_NT).logits - expected).abs().max() > 0.1


def _with_key(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {key: value}))

    return change


def _with_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return rewrite


def _truncate(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_with_key("use_dora", True), "use_dora=True is not read here; merge it with peft first"),
        (_with_key("alpha_pattern", {"q": 3}), "alpha_pattern={'q': 3} is not read here"),
        (_with_key("peft_type", "IA3"), "peft_type must be LORA"),
        (_with_key("init_lora_weights", "pissa"), "init_lora_weights=pissa is not read here"),
        (_with_key("alora_invocation_tokens", [3]), "alora_invocation_tokens=[3] is not read here"),
        (_with_key("use_something_new", True), "use_something_new=True is not read here"),
        (_with_key("use_rslora", "false"), "use_rslora=false must be true or false"),
        (_with_key("lora_alpha", math.nan), "lora_alpha=nan is not a finite number"),
        (_with_key("lora_alpha", None), "cannot be read"),
        (_with_tensors(lambda t: {}), "holds no tensors"),
        (
            _with_tensors(lambda t: {k: v.repeat_interleave(1 << 12, int("_A" in k)) for k, v in t.items()}),
            " in the model",
        ),
        (_truncate, "cannot be read as safetensors"),
        (_with_tensors(lambda t: dict([*t.items()][1:])), "needs lora_A and lora_B of one rank"),
        (_with_tensors(lambda t: {k.replace("layers.0", "layers.9"): v for k, v in t.items()}), "is of another model"),
        (_with_tensors(lambda t: {k: v.repeat(1, 2) if "_A" in k else v for k, v in t.items()}), " in the model"),
    ],
)
def test_what_is_no_adapter_of_these_weights_is_refused(
    damage: Callable[[Path], None], said: str, run: Answer, written: Path, tmp_path: Path
) -> None:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(ConfigError) as caught:
        loaded(run.cwd / "base", adapter=str(tmp_path))
    (line,) = caught.value.lines
    assert line.startswith(f"init.adapter: {tmp_path}")
    assert said in line


def test_an_adapter_may_replace_a_tensor(run: Answer, written: Path, tmp_path: Path) -> None:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    new = torch.full((CONFIG["hidden_size"],), 2.0)
    base = read_open_tensors(run.cwd / "base")[0]
    for name in ("norm", "norm.base_layer"):  # as peft writes embeddings that it adapts
        _with_tensors(lambda tensors, name=name: tensors | {f"base_model.model.model.{name}.weight": new})(tmp_path)
        assert read_adapter(tmp_path).add_to(base)["norm.weight"].equal(new)


def test_weights_that_are_not_finite_are_refused(run: Answer, written: Path, tmp_path: Path) -> None:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    _with_tensors(lambda tensors: {name: tensor * math.nan for name, tensor in tensors.items()})(tmp_path)
    with pytest.raises(ConfigError, match=r"would hold values that are not finite; get the file anew"):
        loaded(run.cwd / "base", adapter=str(tmp_path))


def test_what_was_added_to_other_weights_than_the_published_is_no_adapter(run: Answer, written: Path) -> None:
    words = ("init.from=base", "init.adapter=adapter", "output_dir=twice")
    assert call(*TUNED, "model=gpt", *words, cwd=run.cwd).code == 0
    (twice,) = run.cwd.glob("twice/*/*")
    answer = call(f"run={twice}", "format=peft", "output=second", cwd=run.cwd, verb="export")
    (line,) = is_quiet(answer, code=2)
    assert "init.adapter has changed the weights of init.from; use format=hub" in line


def test_what_has_no_adapter_says_so(tiny_run: Answer, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    words = (f"run={tiny_run.run}", "format=peft")
    (line,) = is_quiet(call(*words, cwd=tmp_path, verb="export"), code=2)
    assert line == "format: peft is for gpt, not MLP; choose another format"
    (line,) = is_quiet(cli("init.adapter=x", "dry_run=true"), code=2)
    assert line == "init.adapter: needs the weights that it is added to; set init.from=..."


def test_an_adapter_in_place_of_weights_says_where_it_goes(run: Answer, written: Path) -> None:
    (line,) = is_quiet(call(*TUNED, "model=gpt", "init.from=adapter", cwd=run.cwd, verb="train"), code=2)
    assert line.startswith("init.from: adapter: is an adapter; name it in init.adapter")
