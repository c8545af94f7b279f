"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): train two small matrices beside each frozen linear layer.

Their product is added to the layer's weights in the end. I inputs and O outputs of a layer, R the rank.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, Positive, ProperFraction
from bigmodel.formatting import format_count
from bigmodel.models.weights.name_patterns import match_names

__all__ = ["LORA_TENSORS", "LoRA", "merge_lora"]

LORA_TENSORS = ("lora_a", "lora_b", "lora_scale")  # of an adapted layer, beside those that it had


@dataclass(frozen=True)
class LoRA:
    """Configuration of LoRA; rank 0 turns it off.

    - `layers`: patterns of the linear layers to adapt.
    - `also_train`: patterns of parameters that are trained whole, as a new head; a layer among them is not adapted.
    - `dropout`: probability with which an input of the matrices is dropped in training.
    - `rank_stabilized`: their product counts alpha / sqrt(rank) times (Kalajdzievski 2023, arXiv:2312.03732), not
        alpha / rank.

    All other parameters are frozen.
    """

    rank: NonNegativeInt = 0
    alpha: Positive = 16.0
    layers: str | Sequence[str] = "*"
    also_train: str | Sequence[str] | None = None
    dropout: ProperFraction = 0.0
    rank_stabilized: bool = False

    def adapt(self, model: nn.Module, began: bool = False) -> str:
        """Insert the matrices, in place, without changing the model's outputs; return a description.

        A run that `began` earlier keeps a rank that would now be refused.

        Raises:
            ValueError: a pattern matches nothing or leaves nothing to adapt, or the rank exceeds a layer's width.
        """
        try:
            trained_whole = match_names(self.also_train, [name for name, _ in model.named_parameters()], "parameter")
        except ValueError as error:
            raise ValueError(f"also_train: {error}") from error
        linear = {name: module for name, module in model.named_modules() if type(module).forward is nn.Linear.forward}
        try:
            adapted = [
                name
                for name in match_names(self.layers, linear, "linear layer")
                if f"{name}.weight" not in trained_whole
            ]
        except ValueError as error:
            raise ValueError(f"layers: {error}") from error
        if not adapted:
            raise ValueError("also_train: matches all of these layers, so that none is left to adapt")
        for name in adapted:
            width = min(linear[name].in_features, linear[name].out_features)
            if self.rank > width and not began:
                shape = f"{linear[name].in_features} to {linear[name].out_features}"
                raise ValueError(
                    f"rank: {self.rank} exceeds the width of {name} ({shape}); set {width} or less, leave it out "
                    f"of init.lora.layers, or train it whole: init.lora.also_train={name}.*"
                )
        unheard = next((name for name in adapted if _is_read_by_parent(name, model)), None)
        if self.dropout and unheard is not None:
            raise ValueError(f"dropout: cannot reach {unheard}, whose weight is read by the layer around it; set 0")
        model.requires_grad_(False)
        for name in adapted:
            self._adapt_layer(linear[name])
        for name in trained_whole:
            model.get_parameter(name).requires_grad_(True)
        sizes = [p.numel() for p in model.parameters() if p.requires_grad]
        layers = format_count(len(adapted), "linear layer")
        return f"{layers} with matrices of rank {self.rank}; {sum(sizes):,} weights are trained"

    def _adapt_layer(self, layer: nn.Linear) -> None:
        weight = layer.weight
        scale = self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)
        layer.lora_a = nn.Parameter(weight.new_empty(self.rank, layer.in_features))
        layer.lora_b = nn.Parameter(weight.new_zeros(layer.out_features, self.rank))  # 0: outputs stay at first
        layer.register_buffer("lora_scale", weight.new_tensor(scale))
        layer.lora_dropout = self.dropout  # type: ignore[assignment]
        nn.init.normal_(layer.lora_a, std=layer.in_features**-0.5)
        layer.__class__ = LoRALinear


class LoRALinear(nn.Linear):
    """Adapted linear layer. The base tensors keep their names.

    `weight` is the sum of base weight and product, for modules that read it without calling the layer.
    """

    lora_a: nn.Parameter  # (R, I)
    lora_b: nn.Parameter  # (O, R)
    lora_scale: Tensor
    lora_dropout: float

    is_off = False  # whether the layer is what it was before

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self._frozen if self.is_off else _add_low_rank(self._frozen, self.lora_a, self.lora_b, self.lora_scale)

    @property
    def _frozen(self) -> Tensor:
        frozen = self._parameters["weight"]
        assert frozen is not None
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O), without computing the summed weight: a frozen weight needs no gradient of its size."""
        if self.is_off:
            return F.linear(x, self._frozen, self.bias)
        heard = F.dropout(x, self.lora_dropout, self.training) if self.lora_dropout else x
        low_rank = F.linear(F.linear(heard, self.lora_a), self.lora_b)
        return F.linear(x, self._frozen, self.bias) + self.lora_scale * low_rank


@contextlib.contextmanager
def base_weights(models: Iterable[nn.Module]) -> Iterator[None]:
    """Within it `weight` of an adapted layer is the tensor of that name, not the sum."""
    layers = [module for model in models for module in model.modules() if isinstance(module, LoRALinear)]
    for layer in layers:
        layer.__class__ = nn.Linear  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = LoRALinear


@contextlib.contextmanager
def base_only(model: nn.Module) -> Iterator[None]:
    """Within it the model computes what it did before LoRA."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    for layer in layers:
        layer.is_off = True
    try:
        yield
    finally:
        for layer in layers:
            layer.is_off = False


def _is_read_by_parent(name: str, model: nn.Module) -> bool:
    """Return whether the module around a layer computes with its weight and does not call it."""
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)


def merge_lora(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge LoRA matrices into their base weights and return a plain state dict; others pass through.

    Raises:
        ValueError: a layer lacks one of its matrices, or the shapes contradict each other.
    """
    merged = dict(weights)
    for name in weights:
        layer = name.removesuffix("lora_scale")
        if layer == name:
            continue
        try:
            a, b, scale = (merged.pop(f"{layer}{each}") for each in LORA_TENSORS)
            if merged[f"{layer}weight"].shape != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1] or scale.ndim:
                raise ValueError(
                    f"{layer}lora_a, lora_b: the shape of their product differs from that of {layer}weight"
                )
        except (KeyError, IndexError) as error:
            raise ValueError(f"{name}: needs a weight, lora_a and lora_b of two dimensions each") from error
        merged[f"{layer}weight"] = _add_low_rank(merged[f"{layer}weight"], a, b, scale)
    return merged


def _add_low_rank(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return weight + scale * (b @ a)
