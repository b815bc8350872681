"""A thread on each rank that says where the rank stands when nothing goes on any more, also while it waits in MPI."""

import os
import platform
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_LOOK = 1.0  # seconds between two looks, where the patience is not much shorter
_STUCK = 0.2  # seconds in which a rank that is told to end does something about it, unless it waits for others
_ENDS = (signal.SIGTERM, signal.SIGINT)


class Standing(NamedTuple):
    """Where a rank is."""

    steps: int  # grows whenever it gets somewhere
    where: str


class Watchdog:
    """Ends the job when this rank gets nowhere for too long, and says where all ranks are.

    They tell each other by files in ``OUT.h5.watchdog``: MPI is what they are stuck in. It also says how to go on when
    the launcher ends the job while this rank waits, which happens when another rank has died.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        target: str,
        seconds: float | None,
        standing: Callable[[], Standing],
        way_on: Callable[[], str],
        abort: Callable[[int], None],
    ) -> None:
        """``seconds``: how long nothing may happen; None: as long as it takes."""
        self._rank, self._size, self._seconds = rank, size, seconds
        self._standing, self._way_on, self._abort = standing, way_on, abort
        self._place = Path(f"{target}.watchdog")
        self._said = Path(f"{target}.error")

    def clear(self) -> None:
        """Remove what an earlier job has left: one rank does, before any watches."""
        shutil.rmtree(self._place, ignore_errors=True)
        with suppress(OSError):
            self._said.unlink(missing_ok=True)

    def hush(self) -> None:
        """Let rank 0 know that this rank has said why the job ends."""
        if self._rank != 0:
            with suppress(OSError):
                self._said.touch()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs, which must be in the main thread and have handlers for signals."""
        ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        leave = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ear, leave), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            leave.set()
            os.close(mouth)  # which wakes the thread
            thread.join()
            os.close(ear)

    def _watch(self, ear: int, leave: threading.Event) -> None:
        look = _LOOK if self._seconds is None else min(_LOOK, self._seconds / 4)
        steps, since = self._standing().steps, time.monotonic()
        while not leave.is_set():
            if select.select([ear], [], [], None if self._seconds is None else look)[0]:
                told = os.read(ear, 64)
                if leave.is_set():
                    return
                if any(number in told for number in _ENDS):
                    self._hear_of_the_end()
            now = self._standing().steps
            if now != steps:
                steps, since = now, time.monotonic()
            elif self._seconds is not None and (time.monotonic() - since >= self._seconds or self._place.exists()):
                self._bark(time.monotonic() - since, 2 * look)

    def _hear_of_the_end(self) -> None:
        """The main thread cannot say how to go on while it waits for others in MPI."""
        before = self._standing()
        time.sleep(_STUCK)
        if self._rank == 0 and self._said.exists():
            self.clear()
        elif self._rank == 0 and self._standing().steps == before.steps:
            line = f"rank 0 on {platform.node()} is told to end, {before.where}, perhaps since another rank has died"
            print(f"mpicoded: {line}{self._way_on()}", file=sys.stderr, flush=True)

    def _bark(self, quiet: float, wait: float) -> None:
        """Say where this rank is; the lowest that can speak ends the job."""
        line = f"rank {self._rank} on {platform.node()}: {self._standing().where}, for {quiet:.0f} s"
        with suppress(OSError):  # a full disk may be what the ranks are stuck at
            self._place.mkdir(exist_ok=True)
            part = self._place / f".{self._rank}"
            part.write_text(line)
            part.rename(self._place / str(self._rank))
        time.sleep(wait)
        told = {self._rank: line}
        with suppress(OSError):  # the speaker has said it all, and has removed them
            told |= {int(file.name): file.read_text() for file in self._place.iterdir() if file.name.isdecimal()}
        if self._rank == min(told):
            silent = [f"rank {rank}: says nothing, as if stopped" for rank in range(self._size) if rank not in told]
            lines = [*(told[rank] for rank in sorted(told)), *silent]
            head = f"mpicoded: nothing has happened for {self._seconds:g} s: the job is ended{self._way_on()}"
            print("\n".join([head, *(f"mpicoded:   {line}" for line in lines)]), file=sys.stderr, flush=True)
            shutil.rmtree(self._place, ignore_errors=True)
            self._abort(1)
        else:
            time.sleep(wait)
        os._exit(1)
