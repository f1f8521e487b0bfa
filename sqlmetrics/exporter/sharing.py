"""Gives one answer to all clients that ask the same at once, as long as it is as fresh as an answer of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")


class Shared(Generic[Q, A]):
    """Answers questions one at a time, in a thread of their own, so that no other work keeps them waiting.

    A client that asks while the same question is being answered waits for the next answer, because the present one may
    have read what has changed since. All clients that wait share the next answer, which begins after the last of them
    has come.
    """

    def __init__(self, work: Callable[[Q], A]):
        self._work = work
        self._thread = ThreadPoolExecutor(1)
        self._turn = asyncio.Lock()
        self._waiting: dict[Q, asyncio.Task[A]] = {}

    async def answer(self, question: Q) -> A:
        """Return the answer of work that begins from now on. Raises what the work does."""
        task = self._waiting.get(question)
        if task is None:
            task = self._waiting[question] = asyncio.ensure_future(self._begin(question))
        return await asyncio.shield(task)

    async def _begin(self, question: Q) -> A:
        async with self._turn:
            del self._waiting[question]
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, question)
