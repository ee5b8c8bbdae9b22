"""Where drawings go: image files, videos and a window."""

import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2

from effdet_plugin.errors import InstallError
from effdet_plugin.files import RGBImage, write_image
from effdet_plugin.inference.reading import Shot
from effdet_plugin.inference.sources import Kind, Source
from effdet_plugin.inference.video_file import (
    VideoFile,
    file_class,
    why_this_codec,
    writing_video,
)

_ESCAPE, _EVERY_KEY = 27, 255
_WINDOW = 'effdet_plugin: q or Esc ends'


class Names:
    """File names of drawings, all different."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, stem: str, suffix: str) -> str:
        """Return ``stem + suffix``, with a number in between if it was taken before."""
        name = stem + suffix
        first = name.lower()  # some file systems ignore case
        count = self._counts.get(first, 1)
        while name.lower() in self._taken:
            count += 1
            name = f'{stem}_{count}{suffix}'
        self._counts[first] = count
        self._taken.add(name.lower())
        return name

    def take_for(self, source: Source) -> str:
        """Return the name of a source's drawing: of images, .png stays .png, others become .jpg."""
        if source.kind is not Kind.IMAGE:
            return self.take(source.stem, file_class().suffix)
        suffix = '.png' if Path(source.name).suffix.lower() == '.png' else '.jpg'
        return self.take(source.stem, suffix)


class Drawings:
    """Files of drawings in a folder: an image for each image, a video for each video.

    A context: a video that is being written when it ends is finished, or removed after an error.

    Args:
        folder: Created if it is missing.
        names: Of the drawings, one for each source that is written or skipped; None: made here.

    Attributes:
        remarks: One line for each video that was written.
    """

    def __init__(self, folder: Path, names: Iterable[str] | None = None) -> None:
        self.folder = folder
        self.remarks: list[str] = []
        self._names = Names()
        self._given = None if names is None else iter(names)
        self._opened = ExitStack()
        self._video: VideoFile | None = None
        self._source: Source | None = None
        self._name = ''

    def __enter__(self) -> 'Drawings':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        else:
            self._opened.__exit__(kind, error, trace)

    def skip(self, source: Source) -> None:
        """Keep the name of a source that cannot be read, so that the others have their own."""
        self._take(source)

    def write(self, shot: Shot, drawn: RGBImage) -> None:
        """Write the drawing of an image or frame; frames of one video come one after the other."""
        if shot.frame is None:
            write_image(self.folder / self._take(shot.source), drawn)
            return
        if self._video is None or shot.source is not self._source:
            self._finish()
            self._source = shot.source
            self._name = self._take(shot.source)
            writer = writing_video(self.folder / self._name, shot.fps)
            self._video = self._opened.enter_context(writer)
        self._video.write(drawn, shot.time_s)

    def _take(self, source: Source) -> str:
        return self._names.take_for(source) if self._given is None else next(self._given)

    def _finish(self) -> None:
        """Close the video that is open, if any."""
        video, self._video = self._video, None
        self._opened.close()
        if video is None:
            return
        odd = ', some resized to the size of the first' if video.is_resized else ''
        self.remarks.append(
            f'{self.folder / self._name}: {video.num_frames} frames{odd}, without sound '
            f'({why_this_codec()})'
        )


class Window:
    """A window that shows drawings.

    Raises:
        InstallError: There is no display, or this OpenCV has no windows.
    """

    def __init__(self) -> None:
        check_display()
        cv2.namedWindow(_WINDOW, cv2.WINDOW_NORMAL)

    def show(self, shot: Shot, drawn: RGBImage) -> bool:
        """Show a frame, or an image until a key is pressed; return whether to go on."""
        cv2.imshow(_WINDOW, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(0 if shot.frame is None else 1) & _EVERY_KEY
        is_open = cv2.getWindowProperty(_WINDOW, cv2.WND_PROP_VISIBLE) >= 1
        return is_open and key not in (ord('q'), _ESCAPE)

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow(_WINDOW)


def check_display() -> None:
    """Check that images can be shown on a screen.

    Raises:
        InstallError: Says what is missing.
    """
    lines = cv2.getBuildInformation().splitlines()
    gui = [line.split(':', 1)[1].strip() for line in lines if line.strip().startswith('GUI:')]
    if gui and gui[0].split(' ')[0] in ('NONE', 'NO', ''):
        raise InstallError(
            'this OpenCV has no windows (opencv-python-headless); to show images: pip uninstall '
            'opencv-python-headless, then pip install opencv-python; or look into the output folder'
        )
    is_desktop = sys.platform in ('win32', 'darwin')
    if not is_desktop and not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
        raise InstallError(
            'no display (DISPLAY is not set): start it on a desktop or by ssh -X, or look into the '
            'output folder'
        )
