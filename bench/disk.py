"""How fast the disk below a file is read past the page cache: large reads at random places, several in flight."""
import mmap
import os
import random
import threading
import time

SIZES = (1 << 20, 2 << 20, 4 << 20)
IN_FLIGHT = (1, 2, 4, 8)
HUGE = 2 << 20  # bytes of a huge page
SECONDS = 0.4  # for each combination


class Reader(threading.Thread):
    """Reads pieces of one size until the time is over."""

    def __init__(self, file, file_size, size, end):
        super().__init__()
        self.file, self.size, self.end = file, size, end
        self.pieces = file_size // size
        self.buffer = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # begins at a page, as O_DIRECT asks
        self.buffer.madvise(mmap.MADV_HUGEPAGE)  # where few long stretches of memory are filled, a disk is fastest
        self.place = memoryview(self.buffer)[:size]
        self.done = 0

    def run(self):
        while time.monotonic() < self.end:
            self.done += os.preadv(self.file, [self.place], random.randrange(self.pieces) * self.size)


def rate(file, file_size, size, in_flight):
    start = time.monotonic()
    readers = [Reader(file, file_size, size, start + SECONDS) for _ in range(in_flight)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return sum(reader.done for reader in readers) / (time.monotonic() - start)


def speed(path):
    """Bytes a second, of the best size and number in flight."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        file_size = os.fstat(file).st_size
        return max(rate(file, file_size, size, count) for size in SIZES if size <= file_size for count in IN_FLIGHT)
    finally:
        os.close(file)
