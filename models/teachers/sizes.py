"""Pictures to the size a teacher works at, and back."""

import numpy as np
import numpy.typing as npt


def enlarged(picture: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """(H,W,3) uint8 at size x size (Lanczos); as it is where `size` is 0."""
    from PIL import Image

    if not size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def resized(picture: npt.NDArray[np.float32], size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """(H,W,3) float32 at another (H,W), averaged over what a pixel covers."""
    if picture.shape[:2] == size:
        return picture
    from skimage.transform import resize

    return np.asarray(resize(picture, size, order=1, anti_aliasing=True), dtype=np.float32)
