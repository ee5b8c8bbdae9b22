"""What an INPUT argument means: images, videos, cameras and addresses."""

import glob
import os
import re
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from effdet_plugin.download import WEB
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_text

IMAGE_SUFFIXES = frozenset(
    {'.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
) | frozenset({'.avif', '.jfif', '.jp2', '.jpe', '.pbm', '.pgm', '.pnm', '.ppm'})
VIDEO_SUFFIXES = frozenset(
    {'.3gp', '.asf', '.avi', '.flv', '.m2ts', '.m4v', '.mjpeg', '.mjpg', '.mkv', '.mov', '.mp4'}
) | frozenset({'.mpeg', '.mpg', '.mts', '.ogv', '.vob', '.webm', '.wmv'})
LIST_SUFFIXES = frozenset({'.txt', '.lst'})
# FFmpeg's protocols of live video. Others of its protocols name files or join addresses.
STREAMS = ('rtsp://', 'rtsps://', 'rtmp://', 'rtmps://', 'srt://', 'udp://', 'rtp://')
PLAYLIST_SUFFIX = '.m3u8'  # of HLS, which FFmpeg reads by its address
HEAD_BYTES = 256  # enough for `kind_of_content`
_ADDRESS = re.compile(r'^[a-zA-Z][a-zA-Z0-9+.-]+://')
_AVIF = (b'avif', b'avis', b'heic', b'heix', b'mif1', b'msf1')  # images in the container of mp4


class Kind(Enum):
    """How a source is read."""

    IMAGE = 'image'  # a file
    VIDEO = 'video'  # a file
    CAMERA = 'camera'  # a webcam by its number
    STREAM = 'stream'  # live video by FFmpeg: RTSP and relatives, HLS
    WEB = 'web'  # http(s): image, video or MJPEG; known when it is opened


@dataclass(frozen=True)
class Source:
    """One thing to read images from.

    Args:
        kind: How it is read.
        place: Path, number of a camera, or address; an address may hold a password.
        name: For messages, JSON and the names of drawings; without password.
    """

    kind: Kind
    place: str
    name: str

    @property
    def is_live(self) -> bool:
        """Whether its images come at their own pace, and are lost if nobody takes them."""
        return self.kind in (Kind.CAMERA, Kind.STREAM)

    @property
    def stem(self) -> str:
        """Name of its drawing, without suffix."""
        suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES | {PLAYLIST_SUFFIX}
        path = Path(self.name)
        bare = path.stem if path.suffix.lower() in suffixes else path.name
        return re.sub(r'[^\w.+ ()\[\]-]', '_', bare) or 'stream'


def find_sources(text: Path | str) -> list[Source]:
    """Return what an INPUT argument names, files sorted by name; a list keeps its order.

    Args:
        text: An image or video; a folder (its images and videos, not those in sub-folders); a glob
            pattern, which may contain ``**``; a ``.txt`` list with one path or address per line,
            relative to the list's folder or else to the current one; the number of a camera; an
            address of http(s), or of live video (`STREAMS`).

    Raises:
        DatasetError: Nothing is found, or the address is of another kind.
    """
    if _ADDRESS.match(str(text)):
        return [_from_address(str(text))]
    path = Path(text)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        is_list = path.suffix.lower() in LIST_SUFFIXES
        return _from_list(path) if is_list else [from_file(path)]
    if (camera := _camera_number(str(text))) is not None:
        return [Source(Kind.CAMERA, str(camera), f'camera_{camera}')]
    if glob.has_magic(str(text)):
        found = sorted(Path(name) for name in glob.glob(str(text), recursive=True))
        files = [from_file(file) for file in found if file.is_file()]
        if files:
            return files
        raise DatasetError(f'no file matches {text}')
    raise DatasetError(f'{text}: no such file or folder')


def find_images(text: Path | str) -> list[Path]:
    """Return the image files of an INPUT argument, as `find_sources` does.

    Raises:
        DatasetError: No file is found, or something is no image file.
    """
    sources = find_sources(text)
    for source in sources:
        if source.kind is not Kind.IMAGE:
            raise DatasetError(f'{source.name}: a {source.kind.value}, where images are needed')
    return [Path(source.place) for source in sources]


def from_file(path: Path) -> Source:
    """Return the source of one file; its suffix decides, without a known one its content."""
    suffix = path.suffix.lower()
    kind = Kind.VIDEO if suffix in VIDEO_SUFFIXES else Kind.IMAGE
    if suffix not in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.is_file():
        kind = kind_of_content(_head(path)) or Kind.IMAGE
    return Source(kind, str(path), path.name)


def kind_of_content(head: bytes) -> Kind | None:
    """Return whether the first `HEAD_BYTES` of a file are of an image or video; None: neither."""
    if head[4:8] == b'ftyp':
        return Kind.IMAGE if head[8:12] in _AVIF else Kind.VIDEO
    riff = head[8:12] if head[:4] == b'RIFF' else b''
    images = (b'\xff\xd8\xff', b'\x89PNG\r\n', b'GIF8', b'BM', b'II*\0', b'MM\0*', b'\0\0\0\x0cjP')
    if riff == b'WEBP' or head.startswith(images):
        return Kind.IMAGE
    # Matroska and WebM, FLV, Ogg, MPEG program stream, Windows Media
    videos = (b'\x1aE\xdf\xa3', b'FLV\x01', b'OggS', b'\0\0\x01\xba', b'0&\xb2u')
    is_transport = head[:1] == b'G' == head[188:189]  # MPEG-TS: packets of 188 bytes
    return Kind.VIDEO if riff == b'AVI ' or is_transport or head.startswith(videos) else None


def hidden_login(address: str) -> str:
    """Return an address without user, password, query and fragment, fit to be printed."""
    parts = urlsplit(address)
    return f'{parts.scheme}://{parts.netloc.rpartition("@")[2]}{parts.path}'


def _from_address(address: str) -> Source:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ''
    except ValueError as error:
        raise DatasetError(f'{address}: no address ({error})') from error
    shown = hidden_login(address)
    path = unquote(parts.path)
    if not host and parts.scheme != 'udp':
        raise DatasetError(f'{shown}: an address without a host')
    if address.lower().startswith(WEB) and not path.lower().endswith(PLAYLIST_SUFFIX):
        return Source(Kind.WEB, address, Path(path).name or host)
    if address.lower().startswith((*STREAMS, *WEB)):
        return Source(Kind.STREAM, address, '_'.join(filter(None, (host, *path.split('/')))))
    known = ', '.join(WEB + STREAMS)
    raise DatasetError(f'{shown}: {parts.scheme}:// is not read; addresses start with {known}')


def _camera_number(text: str) -> int | None:
    """Return the number of a camera given as ``0`` or ``/dev/video0``; None for another text."""
    device = re.fullmatch(r'/dev/video(\d{1,3})', text)
    if device and (not os.path.exists(text) or stat.S_ISCHR(os.stat(text).st_mode)):
        return int(device[1])
    return int(text) if re.fullmatch(r'\d{1,3}', text, re.ASCII) else None


def _head(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b''  # its reader says why


def _from_folder(folder: Path) -> list[Source]:
    """Return the images and videos directly in a folder."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    files = [path for path in files if not path.name.startswith('.') and path.is_file()]
    if not files:
        raise DatasetError(f"no image in {folder}; for its sub-folders give '{folder}/**/*.jpg'")
    return [from_file(path) for path in files]


def _from_list(path: Path) -> list[Source]:
    """Return the sources in a text file; whether they can be read is not checked here."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    named = [line for line in lines if line and not line.startswith('#')]
    if not named:
        raise DatasetError(f'{path} names no image')
    return [_from_line(line, path.parent) for line in named]


def _from_line(line: str, folder: Path) -> Source:
    if _ADDRESS.match(line):
        return _from_address(line)
    beside = folder / line
    return from_file(beside if beside.exists() else Path(line))
