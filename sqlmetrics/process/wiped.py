"""Bytes that a fork sets to zero: how an operation finds out, with one memory read, that it is in a child.

The page is private memory marked ``MADV_WIPEONFORK``, so that even a C ``fork()`` that runs none of Python's
hooks (uWSGI) leaves zeros in the child. Where the system lacks it, the at-fork hook writes the zeros.
"""

from __future__ import annotations

import array
import mmap
import weakref

_WIPEONFORK = 18  # MADV_WIPEONFORK of Linux 4.14; not in Python's mmap module


class WipedBytes:
    """Hands out single bytes; each is used by one binding and never handed out twice."""

    def __init__(self) -> None:
        # Pages that the kernel does not wipe. Each lives as long as one of its bytes does, so a process that renews its
        # byte again and again does not need more and more of them.
        self._pages: list[weakref.ref[mmap.mmap | array.array[int]]] = []
        self._page = memoryview(b"")
        self._next = mmap.PAGESIZE

    def take(self) -> memoryview:
        """Return a view of one byte, 0 at first and 0 again in any forked child."""
        if self._next == mmap.PAGESIZE:
            page, is_wiped = _page()
            if not is_wiped:
                self._pages = [*(ref for ref in self._pages if ref() is not None), weakref.ref(page)]
            self._page = memoryview(page)
            self._next = 0
        index = self._next
        self._next = index + 1
        return self._page[index : index + 1]

    def wipe(self) -> None:
        """Set all bytes to zero, where the kernel has not."""
        for ref in self._pages:
            page = ref()
            if page is not None:
                memoryview(page)[:] = bytes(mmap.PAGESIZE)


def _page() -> tuple[mmap.mmap | array.array[int], bool]:
    """Return a page of zeros, and whether the kernel wipes it at a fork."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # no memory can be mapped, perhaps because of a limit
        return array.array("B", bytes(mmap.PAGESIZE)), False
    try:
        page.madvise(_WIPEONFORK)
    except (AttributeError, OSError):  # macOS and old kernels
        return page, False
    return page, True


wiped_bytes = WipedBytes()
