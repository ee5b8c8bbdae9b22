"""Write frames to a video that browsers play: H.264 by PyAV where it is installed, else VP8.

OpenCV's wheels have no encoder of H.264, and what they put in an .mp4 (MPEG-4 part 2) no browser
plays. They have VP8 and VP9, which browsers play in a .webm. Of a street scene of 768x432 VP9 takes
270 ms a frame and one thread, VP8 50 ms for 17 % more bytes at the same PSNR; H.264 takes 17 ms.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from effdet_plugin.errors import WriteError, pip_install
from effdet_plugin.files import RGBImage, replacing

# Of the times in a file. 90 kHz is the usual clock of video; all common rates divide it.
_CLOCK = 90_000
_SMALLEST_SIDE_PX = 16  # encoders refuse less
_QUALITY = {'crf': '23', 'preset': 'veryfast'}  # x264's usual quality, at a tenth of its usual time
_BT601_MATRIX, _BT709, _LIMITED_RANGE = 6, 1, 1  # numbers of ITU-T H.273


class VideoFile(ABC):
    """A video that is being written.

    Args:
        path: Where to write.
        fps: Frames per second that a player shows where times are equally spaced.

    Attributes:
        num_frames: Frames written.
        is_resized: Whether some frame had another size than the first and was resized.
    """

    suffix: str
    codec: str

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.num_frames = 0
        self.is_resized = False
        self._size: tuple[int, int] | None = None

    def write(self, image: RGBImage, time_s: float) -> None:
        """Append a frame.

        Args:
            image: RGB pixels (H, W, 3). Frames of another size than the first are resized; odd
                sides are extended by a pixel, because colours are stored for pairs of pixels.
            time_s: When it is shown, from the start of the video.
        """
        if self._size is None:
            self._size = (image.shape[1], image.shape[0])
        elif self._size != (image.shape[1], image.shape[0]):
            self.is_resized = True
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        self._encode(even_sides(image), time_s)

    @abstractmethod
    def _encode(self, image: RGBImage, time_s: float) -> None:
        """Encode a frame of even sides; the first one opens the file."""

    @abstractmethod
    def close(self) -> None:
        """Write what is buffered, and the index."""


class H264File(VideoFile):
    """H.264 in .mp4 by PyAV: each frame with its own time, index at the start of the file."""

    suffix = '.mp4'
    codec = 'H.264'

    def __init__(self, path: Path, fps: float) -> None:
        import av

        super().__init__(path, fps)
        self._av = av
        self._container = av.open(str(path), 'w', options={'movflags': '+faststart'})
        self._stream: Any = None
        self._last = -1

    def _encode(self, image: RGBImage, time_s: float) -> None:
        if self._stream is None:
            self._stream = self._start(image.shape[1], image.shape[0])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
        # The matrix is named in the file: players take BT.709 for large videos without a name.
        frame = frame.reformat(format='yuv420p', dst_colorspace='ITU601', dst_color_range='MPEG')
        self._last = max(self._last + 1, round(time_s * _CLOCK))  # times have to increase
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def close(self) -> None:  # noqa: D102
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def _start(self, width: int, height: int) -> Any:
        rate = Fraction(self.fps).limit_denominator(1001)
        stream = self._container.add_stream('libx264', rate=rate, options=_QUALITY)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        context = stream.codec_context
        context.time_base = Fraction(1, _CLOCK)
        context.colorspace, context.color_range = _BT601_MATRIX, _LIMITED_RANGE
        context.color_primaries = context.color_trc = _BT709
        return stream


class VP8File(VideoFile):
    """VP8 in .webm by OpenCV: a constant frame rate, kept by repeating frames that stay longer."""

    suffix = '.webm'
    codec = 'VP8'

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, fps)
        self._writer: Any = None
        self._last: RGBImage | None = None

    def _encode(self, image: RGBImage, time_s: float) -> None:
        if self._writer is None:
            self._writer = self._start(image.shape[1], image.shape[0])
        # Every frame is written at least once, also where two come within one of this rate.
        while self._last is not None and self.num_frames < round(time_s * self.fps):
            self._put(self._last)
        self._put(image)
        self._last = image

    def close(self) -> None:  # noqa: D102
        if self._writer is None:
            return
        self._writer.release()
        # OpenCV reports no error of writing.
        reader = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        is_readable = reader.isOpened()
        reader.release()
        if not is_readable:
            raise WriteError(f'{self.path}: cannot be written: is the disk full?')

    def _put(self, image: RGBImage) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def _start(self, width: int, height: int) -> Any:
        quiet_ffmpeg()
        code = cv2.VideoWriter.fourcc(*'VP80')
        with _no_stderr():  # OpenCV warns of a tag that .webm does not store
            writer = cv2.VideoWriter(
                str(self.path), cv2.CAP_FFMPEG, code, self.fps, (width, height)
            )
        if not writer.isOpened():
            raise WriteError(
                f'{self.path}: this OpenCV cannot encode VP8; PyAV writes H.264: '
                + pip_install('av')
            )
        return writer


def quiet_ffmpeg() -> None:
    """Make OpenCV's FFmpeg print nothing; it reads this once, when it is first used."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


def file_class() -> type[VideoFile]:
    """Return what is written here: H.264 where PyAV is installed, else VP8."""
    return H264File if find_spec('av') else VP8File


def why_this_codec() -> str:
    """Return which codec is written, and why, in a line."""
    if file_class() is H264File:
        return 'H.264 in .mp4, by PyAV: every browser plays it'
    return (
        'VP8 in .webm, by OpenCV: browsers play it, and it needs nothing further; for H.264 in '
        f'.mp4, faster: {pip_install("av")}'
    )


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator[VideoFile]:
    """Yield a video that replaces ``path`` when the block succeeds; see `VideoFile`.

    Args:
        path: Target; its suffix is `file_class`'s.
        fps: Frames per second.

    Raises:
        WriteError: It cannot be written.
    """
    with replacing(path) as part:
        video = file_class()(part, fps)
        try:
            yield video
        except BaseException:
            _close_quietly(video)
            raise
        video.close()


def even_sides(image: RGBImage) -> RGBImage:
    """Repeat the last row or column of an image (H, W, 3) with odd sides; small ones are filled."""
    height, width = image.shape[:2]
    more = [max(_SMALLEST_SIDE_PX - side, side % 2) for side in (height, width)]
    if not any(more):
        return image
    return np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode='edge')


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Send what a C library prints to stderr nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _close_quietly(video: VideoFile) -> None:
    """Close a video that is given up; the first error is raised, what follows from it is logged."""
    try:
        video.close()
    except Exception as error:
        print_log(f'{video.path}: {error}', logger='current', level=logging.DEBUG)
