"""A student as a float32 LiteRT file; models/litert_int8.py makes the smaller ones of it.

All take and give float32 (1,S,S,3) in [0,1]; that of a student with a slider takes the strength, float32 (1,), too. The
graph is written so that all of it runs in one delegate:
- the clamp to [0,1] becomes a ReLU6 on the head, whose weights are six times as large, and a multiplication
  by 1/6: ReLU6 fuses into the convolution, while a bare clamp is a float island in the int8 graph;
- the pixel shuffle becomes one transpose of blocks of 3 x block values: the head's channels are put in
  (row, column, colour) order, which is what a channels-last picture needs. LiteRT's own DEPTH_TO_SPACE has
  no int8 form in ai-edge-quantizer, and what torch's pixel_shuffle lowers to moves every value four times.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from models.controls import Blended, Controlled, blend
from models.onnx_export import example_row
from models.silence import silence

SIX = 6.0  # where ReLU6 saturates


class ChannelsLast(nn.Module):
    """The student on (1,S,S,3) float32 in [0,1], and on the strength if it takes one, computing the same function."""

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).eval()
        self.block = student.block
        with torch.no_grad():
            self.student.head = scaled_head(self.student.head, self.block)

    def forward(self, x: Tensor, *strength: Tensor) -> Tensor:
        """(1,S,S,3) in [0,1], and (1,) of a student with a slider -> (1,S,S,3)."""
        y = self.picture(self.student.features(x.permute(0, 3, 1, 2), *strength))
        if strength:
            return blend(x, y, *strength)
        return blend(x, y, self.student.strength) if isinstance(self.student, Blended) else y

    def picture(self, features: Tensor) -> Tensor:
        """Features (1,C,h,w) -> (1,S,S,3)."""
        y = nn.functional.relu6(self.student.head(features)).permute(0, 2, 3, 1) * (1 / SIX)
        if self.block == 1:
            return y
        batch, height, width, _ = y.shape
        blocks = y.reshape(batch * height, width, self.block, 3 * self.block).permute(0, 2, 1, 3)
        return blocks.reshape(batch, self.block * height, self.block * width, 3)


def scaled_head(head: nn.Conv2d, block: int) -> nn.Conv2d:
    """A copy of `head` with six times the output, its channels in (row, column, colour) order of the blocks."""
    scaled = copy.deepcopy(head)
    order = torch.arange(head.out_channels)
    order = order.reshape(3, block, block).permute(1, 2, 0).flatten()  # pixel_shuffle's is (colour, row, column)
    scaled.weight.copy_(head.weight[order] * SIX)
    if head.bias is not None and scaled.bias is not None:
        scaled.bias.copy_(head.bias[order] * SIX)
    return scaled


def to_litert(student: nn.Module, size: int) -> bytes:
    """The float32 flatbuffer of a student; takes 20 to 35 s and about 1 GiB."""
    inputs = (torch.zeros(1, size, size, 3), *([torch.ones(1)] if isinstance(student, Controlled) else []))
    return converted(ChannelsLast(student).eval(), *inputs)


class OfPictures(nn.Module):
    """A classifier on (1,S,S,3) float32 in [0,1]."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).eval()

    def forward(self, x: Tensor) -> Tensor:
        """(1,S,S,3) in [0,1] -> logits (1,C)."""
        logits: Tensor = self.student(x.permute(0, 3, 1, 2))
        return logits


def classifier_to_litert(student: nn.Module, size: int) -> bytes:
    """The float32 flatbuffer of a classifier of pictures."""
    return converted(OfPictures(student).eval(), torch.zeros(1, size, size, 3))


def text_classifier_to_litert(student: nn.Module, max_tokens: int) -> bytes:
    """The float32 flatbuffer of a classifier of texts: `ids` and `mask` (1,max_tokens) int32 -> logits (1,C)."""
    ids, mask = (one.int() for one in example_row(max_tokens))
    return converted(copy.deepcopy(student).eval(), ids=ids, mask=mask)


def converted(module: nn.Module, *inputs: Tensor, **named: Tensor) -> bytes:
    """The flatbuffer of a module in eval mode that takes such inputs; its signature has the names of the named ones."""
    with silence():
        import litert_torch
        from litert_torch import progress

        progress.config.show_progress = False
        model = litert_torch.convert(module, inputs or None, sample_kwargs=named or None)
        return bytes(model.model_content())
