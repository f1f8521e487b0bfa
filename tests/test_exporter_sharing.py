"""Scrapes that come at once share one answer, if it began after they had come."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers import wait_for

from sqlmetrics.exporter.sharing import Shared

pytestmark = pytest.mark.promise(2)


class Work:
    """Counts how often it was begun; each time it waits until it is told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Semaphore(0)
        self.at_once = self.most_at_once = 0

    def __call__(self, question: str) -> int:
        """The number of this time."""
        self.begun.append(question)
        number = len(self.begun)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        assert self.go.acquire(timeout=20)
        self.at_once -= 1
        return number


async def until(condition: object) -> None:
    """Wait in the loop until a condition is true."""
    await asyncio.to_thread(wait_for, condition)


def test_who_comes_while_an_answer_is_made_gets_the_next_one() -> None:
    """One begins; nine come meanwhile, and share the second; one that comes while that is made has a third."""

    async def ask() -> None:
        work = Work()
        shared = Shared(work)
        first = asyncio.create_task(shared.answer("q"))
        await until(lambda: len(work.begun) == 1)
        others = [asyncio.create_task(shared.answer("q")) for _ in range(9)]
        await asyncio.sleep(0)
        work.go.release()
        await until(lambda: len(work.begun) == 2)
        late = asyncio.create_task(shared.answer("q"))
        await asyncio.sleep(0)
        work.go.release(2)

        assert await first == 1
        assert await asyncio.gather(*others) == [2] * 9
        assert await late == 3
        assert (len(work.begun), work.most_at_once) == (3, 1)

    asyncio.run(ask())


def test_other_questions_are_answered_by_themselves() -> None:
    """Those that are not the same share nothing."""

    async def ask() -> None:
        work = Work()
        shared = Shared(work)
        asked = [asyncio.create_task(shared.answer(question)) for question in ("a", "b", "a", "b")]
        await until(lambda: work.begun)
        work.go.release(2)
        assert await asyncio.gather(*asked) == [1, 2, 1, 2]
        assert work.begun == ["a", "b"]

    asyncio.run(ask())


def test_who_gives_up_takes_nothing_from_the_others() -> None:
    """A client that has hung up does not end the work that others wait for."""

    async def ask() -> None:
        work = Work()
        shared = Shared(work)
        gone, stays = (asyncio.create_task(shared.answer("q")) for _ in range(2))
        await until(lambda: work.begun)
        gone.cancel()
        work.go.release()
        assert await stays == 1

    asyncio.run(ask())


def test_an_error_is_for_all_that_wait_and_not_for_the_next() -> None:
    """What the work raises."""

    def work(question: str) -> str:
        if not failed:
            failed.append(question)
            raise LookupError(question)
        return question

    async def ask() -> None:
        shared = Shared(work)
        found = await asyncio.gather(*[shared.answer("q") for _ in range(3)], return_exceptions=True)
        assert [type(one) for one in found] == [LookupError] * 3
        with pytest.raises(LookupError):
            raise found[0]  # type: ignore[misc]
        assert await shared.answer("q") == "q"

    failed: list[str] = []
    asyncio.run(ask())
