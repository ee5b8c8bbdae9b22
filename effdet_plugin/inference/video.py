"""Frames of video files, cameras and live streams, read by OpenCV with its FFmpeg."""

import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import MAX_PIXELS
from effdet_plugin.inference.sources import Kind, Source, hidden_login
from effdet_plugin.inference.video_file import quiet_ffmpeg

OPEN_TIMEOUT_MS = READ_TIMEOUT_MS = 15_000
FPS_RANGE = (1.0, 240.0)  # what else a file says is no frame rate
USUAL_FPS = 25.0
_NO_CAMERA = (
    'cannot be opened: there is none of this number, another program uses it, or this user may not '
    '(Linux: ls -l /dev/video*)'
)
# A container's number of frames is often an estimate from its duration.
_MISSING_SHARE = 0.02


class Frame(NamedTuple):
    """One frame.

    Args:
        image: RGB pixels (H, W, 3), upright.
        number: In its video, from 0.
        time_s: When it is shown, from the start of the video; for live video when it arrived.
    """

    image: RGBImage
    number: int
    time_s: float


class Video:
    """An open video: its frame rate, its number of frames, and its frames one after the other.

    Args:
        source: A video file, camera or stream.
        place: Path to read instead of the source's, of a download.

    Attributes:
        fps: Frames per second; a usual value where the file has none.
        num_frames: As the container says, 0 if unknown.
        remark: One line about a video that ended early; '' otherwise. Known after the last frame.

    Raises:
        DatasetError: It cannot be opened.
    """

    def __init__(self, source: Source, place: str | None = None) -> None:
        self.source = source
        self.remark = ''
        self._capture = _open(source, place or source.place)
        self.fps = usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_known = not source.is_live and np.isfinite(count) and 0 < count < 1e9
        self.num_frames = int(count) if is_known else 0

    def frames(self, step: int = 1, limit: int | None = None) -> Generator[Frame, None, None]:
        """Yield every ``step``-th frame, at most ``limit``.

        Raises:
            DatasetError: The first frame cannot be decoded, or a frame is too large.
        """
        start, number, taken = time.monotonic(), -1, 0
        while (limit is None or taken < limit) and self._capture.grab():
            number += 1
            if number % step:
                continue
            is_whole, bgr = self._capture.retrieve()
            if is_whole and bgr is not None:
                taken += 1
                yield Frame(self._pixels(bgr), number, self._time_s(number, start))
        if not taken:
            raise DatasetError(f'{self.source.name}: no frame of it can be decoded')
        if limit is None or taken < limit:
            self.remark = self._early_end(number + 1)

    def close(self) -> None:
        """Release file, camera or connection."""
        self._capture.release()

    def _pixels(self, bgr: np.ndarray[Any, Any]) -> RGBImage:
        height, width = bgr.shape[:2]
        if height * width > MAX_PIXELS:
            raise DatasetError(
                f'{self.source.name}: frames of {width}x{height}, more than '
                f'{MAX_PIXELS // 1_000_000} million pixels'
            )
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def _time_s(self, number: int, start: float) -> float:
        if self.source.is_live:
            return time.monotonic() - start
        told = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        # Some containers have no times; then all are 0.
        return told if told > 0 or number == 0 else number / self.fps

    def _early_end(self, read: int) -> str:
        if self.source.is_live:
            return f'{self.source.name}: the stream ended after {read} frames'
        if read >= self.num_frames * (1 - _MISSING_SHARE) - 1:
            return ''
        return (
            f'{self.source.name}: only {read} of about {self.num_frames} frames can be decoded: '
            'damaged, or cut at its end'
        )


@contextmanager
def opened_video(source: Source, place: str | None = None) -> Iterator[Video]:
    """Open a video for the time of a block; see `Video`."""
    video = Video(source, place)
    try:
        yield video
    finally:
        video.close()


def usable_fps(value: float) -> float:
    """Return a frame rate that a file tells, or a usual one if it is none."""
    low, high = FPS_RANGE
    return float(value) if np.isfinite(value) and low <= value <= high else USUAL_FPS


def _open(source: Source, place: str) -> Any:
    """Open a capture, without the lines that OpenCV and FFmpeg print about failures."""
    quiet_ffmpeg()
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if source.kind is Kind.CAMERA:
            capture = cv2.VideoCapture(int(place))
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
            # An absolute path is never taken for one of FFmpeg's protocols.
            name = os.path.abspath(place) if source.kind is not Kind.STREAM else place
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, timeouts)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise DatasetError(_why_not(source, place))
    return capture


def _why_not(source: Source, place: str) -> str:
    if source.kind is Kind.CAMERA:
        return f'camera {place} {_NO_CAMERA}'
    if source.kind is not Kind.VIDEO:
        shown = hidden_login(source.place)
        return f'{shown}: cannot be opened within {OPEN_TIMEOUT_MS // 1000} s: check address, login'
    return f'{source.name}: cannot be read (no video for FFmpeg, damaged, or cut before its index)'
