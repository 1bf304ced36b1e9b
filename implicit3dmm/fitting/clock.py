"""Times of the stages of a piece of work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall and processor seconds of named stages; it starts when it is made."""

    def __init__(self):
        self._started = time.monotonic(), time.process_time()
        self._stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times the block under it as the stage of this name."""
        started = time.monotonic()
        yield
        self._stages[stage] = time.monotonic() - started

    def seconds(self) -> dict[str, float]:
        """Wall seconds of each stage and in all, and processor seconds in all, so far."""
        wall, cpu = time.monotonic() - self._started[0], time.process_time() - self._started[1]
        return {name: round(value, 2) for name, value in (self._stages | {"total": wall, "processor": cpu}).items()}
