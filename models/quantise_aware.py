"""Quantisation-aware training: the student learns while its numbers are rounded as int8 will round them.

torch's PT2E traces the student, folds each BatchNorm with its statistics as they are into the convolution before it,
and puts torchao's fake-quantisers where LiteRT's int8 graph has a scale (Jacob et al. 2018): on weights by output
channel, on what each operator gives, after the activation that fuses into it. What comes out is an ordinary float
student again: the exporters, which find the ranges themselves, need not know.

The teacher's losses barely feel the rounding, as the student is ten times as far from its teacher. So what int8 is held
to, its distance from the student's own float picture, is a loss beside them (`objective`).

Nothing is equalised before (models/equalise.py), as it is at export: it gained nothing and cost some of the effect
(docs/decisions/0012-quantisation.md).
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import UserError
from models.silence import silence
from models.terms import Look, Part, Term

ONNX_LEVELS = 64  # of weights on each side of 0: seven bits (models/onnx_int8.py says why)
LITERT_LEVELS = 127


class Rounded(nn.Module):
    """A student's float function in eval mode; in train mode the same with everything rounded as in int8.

    (B,3,H,W) in [0,1] -> (B,3,H,W), clamped in eval mode only, as the student's own. Ranges are learned in train mode.
    """

    def __init__(self, graph: Any, folded: Mapping[str, str]) -> None:
        super().__init__()
        self.graph = graph
        self.folded = dict(folded)  # by convolution, the BatchNorm that was folded into it; "" for none

    def forward(self, x: Tensor) -> Tensor:
        """As above; UserError where values have grown beyond all numbers."""
        try:
            [y] = self.graph(x)
        except AssertionError as error:  # what torchao says of a range that is none
            raise UserError(f"rounding finds no range for a layer ({error}): lower quantise_aware.rate") from None
        return y if self.training else y.clamp(0.0, 1.0)

    def plain(self, x: Tensor) -> Tensor:
        """The same without rounding, unclamped, in train mode."""
        self._switch(False)
        [y] = self.graph(x)
        self._switch(True)
        return y

    def train(self, mode: bool = True) -> "Rounded":
        """Switch rounding; the traced graph itself knows no modes."""
        self.training = mode
        self._switch(mode)
        return self

    def _switch(self, rounds: bool) -> None:
        for quantiser in self.quantisers():
            quantiser.enable_fake_quant(rounds)
            quantiser.enable_observer(rounds)

    def quantisers(self) -> list[Any]:
        """The fake-quantisers."""
        return [one for one in self.modules() if hasattr(one, "enable_fake_quant")]

    def weight(self, convolution: str) -> Tensor:
        """A convolution's weights, BatchNorm folded in: (outputs, inputs or 1, h, w)."""
        return self.graph.get_parameter(f"{convolution}.weight")

    def bias(self, convolution: str) -> Tensor | None:
        """A convolution's bias, or what its BatchNorm adds: (outputs,)."""
        layer = self.graph.get_submodule(convolution)
        return getattr(layer, "weight_bias", getattr(layer, "bias", None))  # what PT2E adds, or the student's own


def rounded(student: nn.Module, batch: Tensor, weight_levels: int = ONNX_LEVELS) -> Rounded:
    """A copy of a student that rounds, its first ranges found on `batch` (B,3,H,W) in [0,1].

    Weights have `weight_levels` on each side of 0. By default the coarser file's: what learned with them is nearer to
    float in both.
    """
    traced = copy.deepcopy(student).eval()
    traced.training = True  # of the whole, not of its parts: without the clamp, with BatchNorm as it is
    size = torch.export.Dim.DYNAMIC
    with silence():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        program = torch.export.export(
            traced, (torch.zeros(2, *batch.shape[1:]),), dynamic_shapes=({0: size, 2: size, 3: size},)
        )
        graph = program.module(check_guards=False)
        folded = convolutions(graph)
        # prepare_qat_pt2e would put BatchNorm back into training; folded and frozen, it is prepare_pt2e's business.
        graph = prepare_pt2e(graph, make_quantiser(weight_levels))
    # Without what the exporter notes of its inputs and outputs, which cannot be copied without a warning; and without
    # the BatchNorms.
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    made = Rounded(torch.fx.GraphModule(graph, graph.graph), folded)
    made.requires_grad_(True)  # folding leaves the biases without
    made.train()
    for quantiser in made.quantisers():
        quantiser.enable_fake_quant(False)
    with torch.no_grad():
        made(batch)
    return made.train()


def convolutions(graph: Any) -> dict[str, str]:
    """The convolutions of a traced student, each with the BatchNorm that follows it, or ""."""
    aten = torch.ops.aten
    found = {}
    for node in graph.graph.nodes:
        if node.target is aten.conv2d.default:
            after = [user for user in node.users if user.target is aten.batch_norm.default]
            found[owner(node.args[1])] = owner(after[0].args[1]) if after else ""
    return found


def owner(node: Any) -> str:
    """The module whose parameter a node gets."""
    return str(node.target).rpartition(".")[0]


def make_quantiser(weight_levels: int) -> Any:
    """What tells PT2E where to round: everywhere that LiteRT's int8 graph does, but on the picture that comes out.

    That one's rounding to 8 bits is the least of all, and would leave no gradient beyond [0,1].
    """
    from torchao.quantization.pt2e import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    values = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver),
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-weight_levels,
        quant_max=weight_levels,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            averaging_constant=1.0,  # weights are known: no average of what they were
        ),
    )
    aten = torch.ops.aten
    activations = {aten.hardtanh.default, aten.hardtanh_.default, aten.relu.default, aten.relu_.default}

    class LikeLiteRt(Quantizer):
        def annotate(self, model: Any) -> Any:
            nodes = [node for node in model.graph.nodes if node.op in ("placeholder", "call_function")]
            for node in nodes:
                after = {user.target for user in node.users}
                leaves = any(user.op == "output" for user in node.users) or after == {aten.pixel_shuffle.default}
                given = None if leaves or (len(node.users) == 1 and after <= activations) else values
                used = {node.args[1]: weights} if node.target is aten.conv2d.default else {}
                node.meta["quantization_annotation"] = QuantizationAnnotation(used, given, _annotated=True)
            return model

        def validate(self, model: Any) -> None:
            pass

    return LikeLiteRt()


class Rounding(Term):
    """Part "rounding": the mean squared distance of the rounded picture from the float one, of a `Rounded` student."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, look: Look) -> dict[str, Part]:
        """Nothing at a weight of 0, as the float picture costs a second pass."""
        if not self.weight:
            return {}
        assert isinstance(look.student, Rounded)
        return {"rounding": Part(self.weight, functional.mse_loss(look.output, look.student.plain(look.inputs)))}


def settle(student: nn.Module, trained: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give a student in place the weights that its rounded copy has learned; `batches` are to be seen by BatchNorm.

    A BatchNorm's statistics become those of what it really takes, and its scale and shift undo them: the function is
    the copy's, and a later training, which goes by the batch's statistics, begins with the same.
    """
    assert isinstance(trained, Rounded)
    norms = {}
    with torch.no_grad():
        for name, norm in trained.folded.items():
            layer, bias = student.get_submodule(name), trained.bias(name)
            layer.weight.copy_(trained.weight(name))
            if norm:
                norms[norm] = after = student.get_submodule(norm)
                after.running_mean.zero_()
                after.running_var.fill_(1.0 - after.eps)
                after.weight.fill_(1.0)
                after.bias.copy_(bias)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif bias is not None:
                layer.bias.copy_(bias)
        for name, (mean, variance) in statistics(student, norms, batches).items():
            after = norms[name]
            after.running_mean.copy_(mean)
            after.running_var.copy_(variance)
            after.weight.copy_((after.running_var + after.eps).sqrt())
            after.bias.add_(after.running_mean)


def statistics(
    student: nn.Module, modules: Mapping[str, nn.Module], batches: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance by channel of what modules take while the student sees `batches`: two (C,) by name."""
    sums: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        def add(_: nn.Module, taken: tuple[Tensor]) -> None:
            x = taken[0].double()
            moments = [x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3)), torch.ones(())]
            sums[name] = [a + b for a, b in zip(sums[name], moments, strict=True)] if name in sums else moments

        return modules[name].register_forward_pre_hook(add)

    handles = [watch(name) for name in modules]
    student.eval()
    for batch in batches:
        student(batch)
    for handle in handles:
        handle.remove()
    return {
        name: (mean / count, square / count - (mean / count).square()) for name, (mean, square, count) in sums.items()
    }
