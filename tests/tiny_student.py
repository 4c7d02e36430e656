"""A student of a few thousand weights with the same parts as a real one, converted in seconds.

`python tests/tiny_student.py` makes tests/golden again, which a change of the student needs. Numbers that a library
changes are to be noticed, not followed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.encoders import conv_bn
from models.students import DecoderLevel, UNet

SIZE = 32
GOLDEN = Path(__file__).parent / "golden"


class TinyEncoder(nn.Module):
    """Half and quarter resolution."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), conv_bn(16, 16))
        self.inner = inner

    def forward(self, x: Tensor) -> list[Tensor]:
        skip = self.stem(x)
        return [skip, self.inner(self.down(skip))]


class TinyStudent(UNet):
    """The UNet's own forward around that encoder and one decoder level."""

    def __init__(
        self,
        *,
        inner: nn.Module | None = None,
        skip: str = "add",
        upsample: str = "bilinear",
        head: str = "pixel-shuffle",
    ) -> None:
        nn.Module.__init__(self)
        self.encoder = TinyEncoder(inner or nn.Identity())
        level = DecoderLevel(inputs=16, skip_channels=8, outputs=8, skip=skip, upsample=upsample)
        self.decoder = nn.ModuleList([level])
        self.upsample = upsample
        self.block = 2 if head == "pixel-shuffle" else 1
        self.head = nn.Conv2d(8, 3 * self.block**2, 3, padding=1)


def tiny_student(**parts: Any) -> TinyStudent:
    """One with random weights, the same every time, in eval mode; its BatchNorm has seen pictures."""
    torch.manual_seed(0)
    student = TinyStudent(**parts)
    with torch.no_grad():
        for _ in range(3):
            student(torch.rand(4, 3, SIZE, SIZE))
    return student.eval()


def write_golden(folder: Path) -> None:
    """Weights, a photograph and what torch makes of it; to be made again only if the student itself is changed."""
    from safetensors.torch import save_file
    from skimage.data import astronaut

    student = tiny_student()
    picture = astronaut()[::16, ::16][None]
    with torch.no_grad():
        student.head.weight *= 16
        student.head.bias.fill_(0.5)
        expected = student(torch.from_numpy(picture.astype(np.float32) / 255).permute(0, 3, 1, 2))
    folder.mkdir(exist_ok=True)
    save_file(student.state_dict(), folder / "weights.safetensors")
    np.save(folder / "input.npy", picture)
    (folder / "weights.safetensors").chmod(0o644)
    np.save(folder / "expected.npy", expected.permute(0, 2, 3, 1).numpy())


def golden_student() -> TinyStudent:
    """The student of tests/golden."""
    from safetensors.torch import load_file

    student = TinyStudent()
    student.load_state_dict(load_file(GOLDEN / "weights.safetensors"))
    return student.eval()


if __name__ == "__main__":
    write_golden(GOLDEN)
