"""How near a student's pictures are to its teacher's, measured picture by picture and pooled over a set.

PSNR, SSIM (Wang et al. 2004) and MS-SSIM (Wang et al. 2003) come from torchmetrics. They hide blur and
greying, so three figures of our own stand beside them; each pools sums over the set before it divides:

- explained effect = 1 - sum MSE(output, teacher) / sum MSE(input, teacher): 1 is the teacher, 0 is no better
  than leaving the picture alone. Greying a picture does not raise it, as it would a "distance moved" figure.
- sharpness ratio = Laplacian energy of the outputs over the teacher's: below 1 is blur, above 1 is noise.
- chroma ratio = mean chroma of the outputs over the teacher's: below 1 is greying.

The trivial baseline is the best global colour-affine map: what recolouring alone can explain.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.errors import UserError
from models.losses import luma
from models.torch_setup import make_torchvision_importable

Pictures = npt.NDArray[np.uint8]
Columns = dict[str, npt.NDArray[np.float64]]  # one value a picture

PSNR_LIMIT_DB = 100.0  # equal pictures would give infinity, which JSON cannot hold
LEVEL = 1 / 255  # the smallest step of an 8-bit picture: what lies below it counts as equal
MS_SSIM_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
SSIM_KERNEL = 11


def to_tensor(pictures: npt.NDArray[np.generic]) -> Tensor:
    """(B,H,W,3) uint8 or float in [0,1] -> (B,3,H,W) float32 in [0,1].

    Left in channels_last order, in which the structure figures take about half the time on a CPU.
    """
    scale = 255.0 if pictures.dtype == np.uint8 else 1.0
    values = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    return (values / scale).permute(0, 3, 1, 2)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each picture: two (B,3,H,W) -> (B,)."""
    return (a - b).square().mean(dim=(1, 2, 3))


def psnr_db(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, peak 1, at most 100: two (B,3,H,W) -> (B,)."""
    make_torchvision_importable()
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(output, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_LIMIT_DB)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each picture, 11x11 Gaussian window on RGB: two (B,3,H,W) -> (B,)."""
    make_torchvision_importable()
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(output, target, data_range=1.0, reduction="none").reshape(-1)


def ms_ssim_betas(side: int) -> tuple[float, ...]:
    """Weights of the scales that fit pictures whose shorter side is `side`.

    Five from 176 pixels on, as published. Smaller pictures take as many scales as torchmetrics allows for the
    11-pixel window, with the published weights of those scales made to sum to 1 again (3 scales at 64 pixels);
    such figures compare only with figures at the same size.
    """
    scales = len(MS_SSIM_BETAS)
    while scales > 1 and side // (scales - 1) ** 2 < SSIM_KERNEL:
        scales -= 1
    kept = MS_SSIM_BETAS[:scales]
    return kept if scales == len(MS_SSIM_BETAS) else tuple(beta / sum(kept) for beta in kept)


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """Multi-scale structural similarity of each picture: two (B,3,H,W) -> (B,)."""
    make_torchvision_importable()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    betas = ms_ssim_betas(min(output.shape[-2:]))
    values = multiscale_structural_similarity_index_measure(
        output, target, data_range=1.0, reduction="none", betas=betas
    )
    return values.reshape(-1)


def laplacian_energy(image: Tensor) -> Tensor:
    """Mean square of the 4-neighbour Laplacian of luma inside the border: (B,3,H,W) -> (B,)."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    return functional.conv2d(luma(image), kernel).square().mean(dim=(1, 2, 3))


def mean_chroma(image: Tensor) -> Tensor:
    """Mean distance from grey, sqrt(Cb^2 + Cr^2) in full-range BT.601 YCbCr: (B,3,H,W) -> (B,), 0 is grey."""
    return chroma_error(image, torch.zeros_like(image))


def chroma_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the chromas (Cb, Cr), full-range BT.601, place by place: two (B,3,H,W) -> (B,)."""
    difference = output - target
    grey = luma(difference)[:, 0]
    blue, red = (difference[:, 2] - grey) / 1.772, (difference[:, 0] - grey) / 1.402
    return (blue.square() + red.square()).sqrt().mean(dim=(1, 2))


def scene(inputs: Tensor) -> Columns:
    """What kind of picture each input is: (B,3,H,W) in [0,1] -> brightness, detail and colour, columns (B,)."""
    columns = {
        "luma": luma(inputs).mean(dim=(1, 2, 3)),
        "detail": laplacian_energy(inputs),
        "chroma": mean_chroma(inputs),
    }
    return {name: values.numpy().astype(np.float64) for name, values in columns.items()}


def measure(output: Tensor, inputs: Tensor, target: Tensor) -> Columns:
    """All figures of each picture: output, input and teacher's picture, each (B,3,H,W) in [0,1] -> columns (B,)."""
    error, change = squared_error(output, target), squared_error(inputs, target)
    columns = {
        "psnr_db": psnr_db(output, target),
        "ssim": ssim(output, target),
        "ms_ssim": ms_ssim(output, target),
        "error": error,
        "change": change,
        "sharpness": laplacian_energy(output),
        "teacher_sharpness": laplacian_energy(target),
        "chroma": mean_chroma(output),
        "teacher_chroma": mean_chroma(target),
    }
    return {name: values.numpy().astype(np.float64) for name, values in columns.items()}


def join(parts: Sequence[Columns]) -> Columns:
    """Columns of consecutive batches as columns of the whole set."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def explained(error: npt.NDArray[np.float64], change: npt.NDArray[np.float64]) -> float:
    """Explained effect pooled over a set: 1 - sum(error) / sum(change)."""
    total = float(change.sum())
    if total == 0:
        raise UserError("the teacher changed none of the test pictures, so there is no effect to measure: check it")
    return 1.0 - float(error.sum()) / total


def floored_ratio(value: float, reference: float, floor: float) -> float:
    """value / reference, both raised to `floor`: 1 where neither can be seen (the chroma of a grey teacher)."""
    return max(value, floor) / max(reference, floor)


def pool(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """The six figures of a set from `measure`'s columns: means of the per-picture ones, ratios of sums for ours."""
    means = {name: float(values.mean()) for name, values in columns.items()}
    return {
        "psnr_db": means["psnr_db"],
        "ssim": means["ssim"],
        "ms_ssim": means["ms_ssim"],
        "explained_effect": explained(columns["error"], columns["change"]),
        "sharpness_ratio": floored_ratio(means["sharpness"], means["teacher_sharpness"], LEVEL**2),
        "chroma_ratio": floored_ratio(means["chroma"], means["teacher_chroma"], LEVEL),
    }


def batches(arrays: Sequence[Pictures], size: int) -> Iterator[list[Pictures]]:
    """Consecutive rows of equally long (perhaps memory-mapped) arrays, `size` at a time, read into memory."""
    for start in range(0, len(arrays[0]), size):
        yield [np.asarray(array[start : start + size]) for array in arrays]


def fit_colour_affine(pairs: Iterable[Sequence[Pictures]]) -> npt.NDArray[np.float64]:
    """The (3,4) map M that minimises sum |M [r g b 1]^T - teacher|^2 over all pixels of all (inputs, targets).

    Streams over batches of uint8 (B,H,W,3) pairs by their normal equations; colours in [0,1].
    """
    left, right = np.zeros((4, 4)), np.zeros((4, 3))
    for inputs, targets in pairs:
        colours = inputs.reshape(-1, 3).astype(np.float64) / 255
        x = np.concatenate([colours, np.ones((len(colours), 1))], axis=1)
        left += x.T @ x
        right += x.T @ (targets.reshape(-1, 3).astype(np.float64) / 255)
    # lstsq rather than solve: inputs of fewer than three independent colours have no unique best map.
    return np.linalg.lstsq(left, right, rcond=None)[0].T


def colour_affine(matrix: npt.NDArray[np.float64]) -> Callable[[Tensor], Tensor]:
    """The map of `fit_colour_affine` as a function (B,3,H,W) in [0,1] -> same, clipped."""
    weights = torch.from_numpy(matrix.astype(np.float32))

    def recolour(image: Tensor) -> Tensor:
        mixed = torch.einsum("oc,bchw->bohw", weights[:, :3], image) + weights[:, 3].view(1, 3, 1, 1)
        return mixed.clamp(0.0, 1.0)

    return recolour
