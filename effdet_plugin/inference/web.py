"""Images, videos and MJPEG streams by their http(s) address, of bounded size and known type."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit, urlunsplit

import cv2
import numpy as np
from PIL import Image as Pillow

from effdet_plugin.download import TIMEOUT_S
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import MAX_PIXELS
from effdet_plugin.inference.sources import (
    HEAD_BYTES,
    PLAYLIST_SUFFIX,
    Kind,
    hidden_login,
    kind_of_content,
)

MAX_IMAGE_BYTES = 256 << 20
MAX_VIDEO_BYTES = 4 << 30
MAX_FRAME_BYTES = 32 << 20  # of a JPEG in a stream
MJPEG = 'multipart/x-mixed-replace'
_BLOCK_BYTES = 1 << 18
_MAX_LINE, _MAX_LINES = 1 << 12, 100  # of the header of a frame
_END_OF_JPEG = b'\xff\xd9'


@contextmanager
def opened(address: str) -> Iterator[http.client.HTTPResponse]:
    """Open an http(s) address; user and password in it are sent as the server asks for them.

    Raises:
        DatasetError: No network, no such file, or the address leads from https to http.
    """
    shown = hidden_login(address)
    try:
        with _ask(address) as response:
            if address.startswith('https:') and not response.geturl().startswith('https:'):
                raise DatasetError(f'{shown}: leads to an address without encryption')
            yield response
    except urllib.error.HTTPError as error:
        raise DatasetError(f'{shown}: the server answers {error.code} {error.reason}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.filename:  # of our own disk
            raise
        reason = getattr(error, 'reason', None) or str(error) or type(error).__name__
        raise DatasetError(f'{shown}: cannot be read ({reason}): check address, network') from error


def kind_of_answer(response: http.client.HTTPResponse, address: str) -> Kind | str:
    """Return what a server sends: `Kind.IMAGE`, `Kind.VIDEO`, `Kind.STREAM` or `MJPEG`.

    The first bytes count more than the type that the server names. A video without a length has
    no known end and is a stream.

    Raises:
        DatasetError: It is none of these.
    """
    named = response.headers.get_content_type()
    if named == MJPEG:
        return MJPEG
    kind = kind_of_content(response.peek(HEAD_BYTES)[:HEAD_BYTES])
    if 'mpegurl' in named or urlsplit(response.geturl()).path.endswith(PLAYLIST_SUFFIX):
        return Kind.STREAM
    if kind is None and named.startswith(('image/', 'video/')):
        kind = Kind.IMAGE if named.startswith('image/') else Kind.VIDEO
    if kind is None:
        raise DatasetError(
            f'{hidden_login(address)}: sends {named}, which is no image, video or MJPEG stream'
        )
    return Kind.STREAM if kind is Kind.VIDEO and response.length is None else kind


@contextmanager
def downloaded(response: http.client.HTTPResponse, address: str, limit: int) -> Iterator[Path]:
    """Download what a server sends to a temporary file, which is removed after the block.

    Args:
        response: From `opened`.
        address: Its address, for messages and the file's suffix.
        limit: Largest number of bytes.

    Raises:
        DatasetError: More than ``limit`` bytes, or the connection ended early.
    """
    shown = hidden_login(address)
    too_large = DatasetError(f'{shown}: more than {limit >> 20} MB: download it, give its path')
    if (response.length or 0) > limit:
        raise too_large
    promised = response.length
    with TemporaryDirectory(prefix='effdet_') as folder:
        path = Path(folder) / f'content{Path(unquote(urlsplit(address).path)).suffix[:8]}'
        with path.open('wb') as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                if file.tell() > limit:
                    raise too_large
            size = file.tell()
        if promised is not None and size < promised:
            raise DatasetError(f'{shown}: the connection ended after {size} of {promised} bytes')
        yield path


def jpeg_frames(response: http.client.HTTPResponse, shown: str) -> Generator[RGBImage, None, None]:
    """Yield the images of an MJPEG stream as they arrive; damaged ones are left out.

    Args:
        response: From `opened`, of the type `MJPEG`.
        shown: The address, for messages.

    Raises:
        DatasetError: A frame is larger than `MAX_FRAME_BYTES` or MAX_PIXELS; no MJPEG at all.
    """
    is_open = False
    while True:
        length = _read_part_header(response, shown, is_open)
        if length is None:
            return
        if length > MAX_FRAME_BYTES:
            raise DatasetError(f'{shown}: a frame of more than {MAX_FRAME_BYTES >> 20} MB')
        data = response.read(length) if length else _read_to_boundary(response, shown)
        is_open = not length  # the boundary after it has been read, too
        if (image := decode_jpeg(data, shown)) is not None:
            yield image


def decode_jpeg(data: bytes, shown: str) -> RGBImage | None:
    """Decode a JPEG; None if it is damaged.

    Raises:
        DatasetError: It has more than MAX_PIXELS.
    """
    try:
        with Pillow.open(BytesIO(data), formats=['JPEG']) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError):
        return None
    if width * height > MAX_PIXELS:
        raise DatasetError(f'{shown}: {width}x{height}, more than {MAX_PIXELS // 10**6} Mpixels')
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _ask(address: str) -> http.client.HTTPResponse:
    """Send the request, with the handlers of both kinds of login where a login is given."""
    parts = urlsplit(address)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ''))
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    response: http.client.HTTPResponse = opener.open(bare, timeout=TIMEOUT_S)
    return response


def _read_part_header(response: http.client.HTTPResponse, shown: str, is_open: bool) -> int | None:
    """Read to the end of the header of the next part.

    Returns:
        The length that it tells, 0 if none, None at the end of the stream.
    """
    length = 0
    for _ in range(_MAX_LINES):
        line = response.readline(_MAX_LINE)
        if not line:
            return None
        text = line.strip()
        if text.startswith(b'--'):
            is_open = True
        elif not text and is_open:
            return length
        elif text.lower().startswith(b'content-length:'):
            value = text.partition(b':')[2].strip()
            length = int(value) if value.isdigit() else 0
    raise DatasetError(f'{shown}: no MJPEG stream: no frame between its boundaries')


def _read_to_boundary(response: http.client.HTTPResponse, shown: str) -> bytes:
    """Read a frame that does not tell its length, with the boundary after it."""
    data = bytearray()
    while line := response.readline(_MAX_LINE):
        if line.startswith(b'--') and data.rstrip().endswith(_END_OF_JPEG):
            break
        data += line
        if len(data) > MAX_FRAME_BYTES:
            raise DatasetError(f'{shown}: a frame of more than {MAX_FRAME_BYTES >> 20} MB')
    return bytes(data)
