"""From sources to images one after the other: files, videos, cameras and addresses alike."""

import http.client
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image
from effdet_plugin.inference.background import in_background
from effdet_plugin.inference.sources import Kind, Source, hidden_login
from effdet_plugin.inference.video import USUAL_FPS, Frame, Video, opened_video
from effdet_plugin.inference.web import (
    MAX_IMAGE_BYTES,
    MAX_VIDEO_BYTES,
    MJPEG,
    downloaded,
    jpeg_frames,
    kind_of_answer,
    opened,
)

_LIVE_FRAMES = 2  # that wait; older ones are dropped


@dataclass(frozen=True)
class Shot:
    """An image or a frame, decoded.

    Args:
        image: RGB pixels (H, W, 3).
        source: Where it is from.
        image_id: Counts images and taken frames of all sources from 1, unreadable ones too.
        frame: Number in its video, from 0; None for an image.
        time_s: When the frame is shown, from the start of its video.
        fps: Frames per second of the taken frames.
        num_frames: How many frames of its video will be taken, 0 if unknown.
    """

    image: RGBImage
    source: Source
    image_id: int
    frame: int | None = None
    time_s: float = 0.0
    fps: float = USUAL_FPS
    num_frames: int = 0


@dataclass(frozen=True)
class Remark:
    """A line about a source.

    Args:
        text: The line.
        is_unreadable: Nothing of the source, or not all that it promises, can be read.
        skipped: The source, if nothing of it was read.
    """

    text: str
    is_unreadable: bool = False
    skipped: Source | None = None


@dataclass(frozen=True)
class Frames:
    """Which frames of a video are taken.

    Args:
        step: Every ``step``-th.
        limit: At most so many of each video; None: all.

    Raises:
        DatasetError: A number below 1.
    """

    step: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.step < 1 or (self.limit is not None and self.limit < 1):
            raise DatasetError(f'frame step {self.step}, limit {self.limit}: at least 1')

    def expected(self, count: int) -> int:
        """Return how many of ``count`` frames are taken; 0 if the count is unknown."""
        taken = -(-count // self.step)
        return min(taken, self.limit) if self.limit and count else taken


Item = Shot | Remark


def read_sources(sources: Sequence[Source], frames: Frames) -> Generator[Item, None, None]:
    """Yield the images and frames of all sources, with a remark where one cannot be read."""
    image_id = 0
    for source in sources:
        has_begun = False
        try:
            with closing(_read(source, frames)) as items:
                for item in items:
                    if isinstance(item, Shot):
                        has_begun = True
                        image_id += 1
                        item = replace(item, image_id=image_id)
                    yield item
        except DatasetError as error:
            image_id += source.kind is Kind.IMAGE
            skipped = None if has_begun else source
            yield Remark(str(error), is_unreadable=True, skipped=skipped)


def _read(source: Source, frames: Frames) -> Generator[Item, None, None]:
    if source.kind is Kind.IMAGE:
        yield Shot(read_image(source.place), source, 0)
    elif source.kind is Kind.WEB:
        with opened(source.place) as response:
            yield from _from_web(source, response, frames)
    else:
        yield from _from_video(source, None, frames)


def _from_video(source: Source, place: str | None, frames: Frames) -> Generator[Item, None, None]:
    with opened_video(source, place) as video:
        taken = video.frames(frames.step, frames.limit)
        if source.is_live:  # they do not wait for the network
            taken = in_background(taken, _LIVE_FRAMES, newest_only=True)
        with closing(taken):
            yield from (_shot(source, frame, video, frames) for frame in taken)
        if video.remark:
            yield Remark(video.remark, is_unreadable=not source.is_live)


def _shot(source: Source, frame: Frame, video: Video, frames: Frames) -> Shot:
    rate = video.fps / frames.step
    expected = frames.expected(video.num_frames)
    return Shot(frame.image, source, 0, frame.number, frame.time_s, rate, expected)


def _from_web(
    source: Source, response: http.client.HTTPResponse, frames: Frames
) -> Generator[Item, None, None]:
    kind = kind_of_answer(response, source.place)
    if kind == MJPEG:
        yield from _from_mjpeg(source, response, frames)
    elif kind is Kind.STREAM:
        response.close()
        yield from _from_video(replace(source, kind=Kind.STREAM), None, frames)
    elif kind is Kind.VIDEO:
        with downloaded(response, source.place, MAX_VIDEO_BYTES) as path:
            yield from _from_video(replace(source, kind=Kind.VIDEO), str(path), frames)
    else:
        with downloaded(response, source.place, MAX_IMAGE_BYTES) as path:
            yield Shot(_read_download(path, source), replace(source, kind=Kind.IMAGE), 0)


def _read_download(path: Path, source: Source) -> RGBImage:
    try:
        return read_image(path)
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(path), hidden_login(source.place))) from error


def _from_mjpeg(
    source: Source, response: http.client.HTTPResponse, frames: Frames
) -> Generator[Item, None, None]:
    """Yield the frames of an MJPEG stream; the server waits while nobody reads."""
    shown = hidden_login(source.place)
    stream = replace(source, kind=Kind.STREAM)
    number, taken, start = -1, 0, 0.0
    try:
        for frame in jpeg_frames(response, shown):
            number += 1
            if number % frames.step == 0:
                now = time.monotonic()
                start = start or now
                taken += 1
                yield Shot(frame, stream, 0, number, now - start)
            if frames.limit is not None and taken >= frames.limit:
                return
        remark = f'{shown}: the stream ended after {number + 1} frames'
    except (OSError, http.client.HTTPException) as error:
        remark = f'{shown}: the stream broke after {number + 1} frames ({error})'
    if not taken:
        raise DatasetError(f'{shown}: no frame of its MJPEG stream can be decoded')
    yield Remark(remark)
