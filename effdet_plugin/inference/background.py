"""Run an iterator in a thread, so that decoding, network and drawing overlap."""

from collections.abc import Generator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar('T')

_END = object()
_POLL_S = 0.05
# A reader that waits for its network ends by its own timeout; nobody waits for it that long.
_PATIENCE_S = 5.0


class _Failed:
    """An error that was raised in the thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def in_background(
    items: Generator[T, None, None], ahead: int, newest_only: bool = False
) -> Generator[T, None, None]:
    """Yield the items of a generator that runs in a thread; closing this one closes it.

    Args:
        items: Runs, and is closed, in the thread.
        ahead: How many items wait at most, so that memory stays flat.
        newest_only: Where nobody takes them in time the oldest waiting items are dropped: for
            cameras, which do not wait. Otherwise the thread waits.

    Raises:
        BaseException: What ``items`` raises, after the items before it.
    """
    queue: Queue[object] = Queue(ahead)
    stopped = Event()
    thread = Thread(target=_fill, args=(items, queue, stopped, newest_only), daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(_PATIENCE_S)


def _fill(
    items: Generator[T, None, None], queue: 'Queue[object]', stopped: Event, newest_only: bool
) -> None:
    """Put the items of a generator into a queue, then `_END` or the error."""
    try:
        for item in items:
            if not _put(item, queue, stopped, newest_only):
                break
        last: object = _END
    except BaseException as error:
        last = _Failed(error)
    with suppress(Exception):
        items.close()
    _put(last, queue, stopped, newest_only=False)


def _put(item: object, queue: 'Queue[object]', stopped: Event, newest_only: bool) -> bool:
    """Put an item into a queue as soon as there is room; return whether somebody still reads."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=0 if newest_only else _POLL_S)
        except Full:
            if newest_only:
                with suppress(Empty):
                    queue.get_nowait()
        else:
            return True
    return False
