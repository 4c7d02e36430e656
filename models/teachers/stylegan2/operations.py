"""What StyleGAN2 is built of (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN").

Every weight is drawn from N(0,1) and scaled where it is used (equalised learning rate, Karras et al. 2018).
"""

import math

import torch
from torch import nn
from torch.nn import functional

GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
TAPS = (1.0, 3.0, 3.0, 1.0)  # the low-pass filter of every change of resolution


def leaky(x: torch.Tensor, gain: float = GAIN, clamp: float | None = None) -> torch.Tensor:
    """Leaky ReLU of slope 0.2, scaled by `gain`; then clamped, as in networks that were trained in mixed precision."""
    y = functional.leaky_relu(x, 0.2) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def low_pass(x: torch.Tensor, before: int, after: int, gain: float) -> torch.Tensor:
    """Filter (B,C,H,W) with TAPS along both axes; zeros before and after decide the size."""
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps) * (gain / taps.sum() ** 2)
    padded = functional.pad(x, (before, after, before, after))
    return functional.conv2d(padded, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def upsample(x: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> (B,C,2H,2W): zeros between the pixels, then the low-pass filter."""
    batch, channels, height, width = x.shape
    sparse = functional.pad(x.reshape(batch, channels, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
    return low_pass(sparse.reshape(batch, channels, 2 * height, 2 * width), 2, 1, gain=4)


def downsample(x: torch.Tensor) -> torch.Tensor:
    """(B,C,2H,2W) -> (B,C,H,W): the low-pass filter, then every second pixel."""
    return low_pass(x, 1, 1, gain=1)[:, :, ::2, ::2]


def modulated_conv2d(
    x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, *, demodulate: bool = True, up: bool = False
) -> torch.Tensor:
    """Convolve each sample with weights scaled by its own style; `up` doubles the size.

    x (B,I,H,W), weight (O,I,K,K), styles (B,I) -> (B,O,H,W) or (B,O,2H,2W). Scaling the input channels and then the
    output channels is the same as scaling the weights of each sample (section 2.2), and needs one convolution for all.
    """
    scaled = x * styles[:, :, None, None]
    if up:
        y = low_pass(functional.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2), 1, 1, gain=4)
    else:
        y = functional.conv2d(scaled, weight, padding=weight.shape[-1] // 2)
    if not demodulate:
        return y
    energy = weight.square().sum(dim=(2, 3))  # (O,I)
    return y * torch.rsqrt(styles.square() @ energy.t() + 1e-8)[:, :, None, None]


class Linear(nn.Module):
    """A fully connected layer; `rate` slows its learning down, as the mapping network wants it."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.weight_gain, self.bias_gain = rate / math.sqrt(inputs), rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,inputs) -> (B,outputs)."""
        return functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class Conv(nn.Module):
    """A convolution without modulation, as the discriminator uses it; `down` halves the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.weight_gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.down = down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,inputs,H,W) -> (B,outputs,H,W) or (B,outputs,H/2,W/2)."""
        kernel = self.weight.shape[-1]
        if self.down and kernel == 1:
            return functional.conv2d(downsample(x), self.weight * self.weight_gain, self.bias)
        if self.down:
            padding = (kernel - 1) // 2 + 1
            return functional.conv2d(
                low_pass(x, padding, padding, gain=1), self.weight * self.weight_gain, self.bias, 2
            )
        return functional.conv2d(x, self.weight * self.weight_gain, self.bias, padding=kernel // 2)
