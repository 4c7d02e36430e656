"""A short 720p clip for the frame budget: validation pictures side by side, moving, encoded as H.264.

Made from the student's own pictures at their own size, so that there is as much detail to decode as in a camera's
video, at a camera's bit rate. Constrained baseline profile: every packet is one frame, as in a call.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.target import Images

WIDTH, HEIGHT, FRAMES_PER_SECOND = 1280, 720, 30
BITS_PER_SECOND = 8_000_000
CODEC = "avc1.42E01F"  # the same in WebCodecs' words: constrained baseline, level 3.1
SHIFT = 4  # pixels from one frame to the next


def still(pictures: Sequence[Images]) -> npt.NDArray[np.uint8]:
    """(HEIGHT,WIDTH,3): the pictures, each (1,S,S,3) in [0,1], as tiles, as often as it takes."""
    tiles = [np.rint(255 * picture[0]).astype(np.uint8) for picture in pictures]
    size = tiles[0].shape[0]
    rows, columns = -(-HEIGHT // size), -(-WIDTH // size)
    lines = [np.concatenate([tiles[(row + at) % len(tiles)] for at in range(columns)], 1) for row in range(rows)]
    return np.concatenate(lines)[:HEIGHT, :WIDTH]


def make_clip(pictures: Sequence[Images], frames: int) -> list[bytes]:
    """The encoded frames, one packet (Annex B) each; the first holds the stream's parameters too."""
    import av

    try:
        encoder = av.CodecContext.create("libx264", "w")
    except av.FFmpegError:
        raise UserError(
            "this PyAV has no libx264 to make a clip with: install the wheel, or set benchmark.frames: 0"
        ) from None
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FRAMES_PER_SECOND), Fraction(FRAMES_PER_SECOND)
    encoder.bit_rate = BITS_PER_SECOND
    encoder.options = {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline"}
    picture = still(pictures)
    packets: list[bytes] = []
    for number in range(frames):
        shifted = np.ascontiguousarray(np.roll(picture, SHIFT * number, axis=1))
        frame = av.VideoFrame.from_ndarray(shifted, format="rgb24")
        frame.pts = number
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    if len(packets) != frames:
        raise UserError(f"the encoder made {len(packets)} packets of {frames} frames: set benchmark.frames: 0")
    return packets
