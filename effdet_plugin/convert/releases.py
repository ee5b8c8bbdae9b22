"""google/automl's released checkpoints by name."""

from pathlib import Path

from effdet_plugin.download import cache_dir, fetch

# As google/automl's README, tf2/README and Det-AdvProp page give them.
BASE_URL = 'https://storage.googleapis.com/cloud-tpu-checkpoints/efficientdet/'
RELEASES = {
    **{f'd{x}': f'coco2/efficientdet-d{x}.tar.gz' for x in (*range(8), '7x')},
    **{f'd{x}-640': f'coco640/efficientdet-d{x}-640.tar.gz' for x in range(2, 7)},
    **{f'd{x}-advprop': f'advprop/efficientdet-d{x}.tar.gz' for x in range(6)},
    **{f'lite{x}': f'coco/efficientdet-lite{x}.tgz' for x in (0, 1, 2, 3, '3x', 4)},
}


def release_name(src: str | Path) -> str | None:
    """Return the release that ``src`` names: ``d0``, ``efficientdet-d3-640``; None for a path."""
    name = str(src).lower().removeprefix('efficientdet-')
    return name if name in RELEASES and not Path(src).exists() else None


def fetch_release(name: str, cache: str | Path | None = None) -> Path:
    """Return the path of a release's archive, downloaded unless it is there.

    Args:
        name: a key of :data:`RELEASES`.
        cache: folder for downloads.

    Raises:
        CheckpointError: It cannot be downloaded; the line says what to do.
    """
    return fetch(BASE_URL + RELEASES[name], cache_dir(cache), name)
