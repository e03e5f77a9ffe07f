"""Wall clocks that jump, one for each worker: seen by Python, by SQLite, by whatever asks the C library."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path

LIBRARY = "clock.so"
"""The name of the file that is preloaded."""

_CODE = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long none = 0;
volatile long long *storm_seconds = &none;

__attribute__((constructor)) static void begin(void) {
    const char *given = getenv("STORM_SECONDS");
    if (given != NULL) none = atoll(given);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && which == CLOCK_REALTIME) now->tv_sec += *storm_seconds;
    return (int)failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (kept != NULL) *kept = exact.tv_sec;
    return exact.tv_sec;
}
"""


def build(folder: Path) -> Path | None:
    """Compile the library that a process is to preload; None where there is no C compiler, or no preloading.

    A process that has it, and ``STORM_SECONDS`` in its environment, begins with a clock so far off.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    source, library = folder / "clock.c", folder / LIBRARY
    source.write_text(_CODE, encoding="utf-8")
    if compiler is None:
        return None
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source], capture_output=True, check=False
    )
    return library if done.returncode == 0 else None


class Clocks:
    """How far the clocks of forked processes are off, in whole seconds; kept in memory that they share.

    Args:
        count: of processes.
    """

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)
        self._offsets = (ctypes.c_longlong * count).from_buffer(self._memory)

    def jump(self, slot: int, seconds: int) -> None:
        """Set the clock of a process so far off the machine's, at once."""
        self._offsets[slot] = seconds

    def go_by(self, slot: int) -> None:
        """Go by this clock from now on, in the process that calls it; it has the library preloaded.

        Raises:
            ValueError: it has not.
        """
        pointer = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "storm_seconds")
        pointer.value = ctypes.addressof(self._offsets) + 8 * slot
