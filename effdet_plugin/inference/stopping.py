"""Ctrl-C that ends a long work between two images, so that what it has written is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What ends a camera's recording: the keyboard, and the `stop` of containers and services.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Turns the first signal into a `KeyboardInterrupt`, but only inside `waiting`.

        with Stopping() as stopping:
            try:
                while True:
                    with stopping.waiting():
                        item = wait_for_the_next()
                    write(item)   # is finished in any case; a second signal ends it at once
            except KeyboardInterrupt:
                ...

    Outside the main thread, which alone gets signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._is_waiting = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> 'Stopping':
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end the block, also one that came before it."""
        self._is_waiting = True
        try:
            if self._is_asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_waiting = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._is_waiting or self._is_asked:
            self._is_waiting, self._is_asked = False, True
            raise KeyboardInterrupt
        self._is_asked = True
