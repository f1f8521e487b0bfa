"""All interleavings of a few processes over a small shared state, and a SIGKILL at each step: an exhaustive search.

The processes are the project's real functions. What they share is replaced by objects that turn every load, store,
lock and commit into a request. A process is a function of the answers that it got so far: it is called with them, runs
to its next request, and is left there by an exception. So the search can have any process go on from any state, and a
state that was met before, with the same answers given to all, is not searched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Shared = dict[str, Any]
"""What is shared: names, and values that are hashable."""
Request = Callable[[Shared, str], Any]
"""One atomic step: given the shared state, which it changes, and the process's name, it returns the answer."""


class _Paused(BaseException):
    """The process has come to its next request."""


class Tape:
    """The answers that the process which runs now has got, and the request that it has come to."""

    def __init__(self) -> None:
        self._answers: tuple[Any, ...] = ()
        self._at = 0
        self.request: Request | None = None

    def ask(self, request: Request) -> Any:
        """Return the answer to a request, or stop here; the `finally` blocks on the way out do nothing."""
        if self.request is not None:
            return False
        if self._at < len(self._answers):
            self._at += 1
            return self._answers[self._at - 1]
        self.request = request
        raise _Paused

    def run(self, process: Callable[[], object], answers: tuple[Any, ...]) -> Request | None:
        """Run a process to the request after these answers, and return that; None if it has come to its end."""
        self._answers, self._at, self.request = answers, 0, None
        try:
            process()
        except _Paused:
            return self.request
        return None


class State(NamedTuple):
    """shared: sorted items. answers: of each process, by its place; None once it was killed or has ended."""

    shared: tuple[tuple[str, Any], ...]
    answers: tuple[tuple[Any, ...] | None, ...]
    kills: int


class Search:
    """Every state that can be reached.

    processes: by their names. kills: how many of them may be killed, each at any of its steps.
    killed: what the system does to the shared state when a process is gone, by a SIGKILL or at its end.
    """

    def __init__(
        self,
        tape: Tape,
        processes: dict[str, Callable[[], object]],
        killed: Callable[[Shared, str], None],
        kills: int = 1,
    ):
        self._tape = tape
        self._names = list(processes)
        self._processes = list(processes.values())
        self._killed = killed
        self._kills = kills
        self.seen: set[State] = set()
        self.ends: list[Shared] = []
        """The shared state wherever no process is left."""

    def run(self, shared: Shared) -> None:
        """Search from a state on. An AssertionError of a step is raised with the steps that led to it."""
        first = State(tuple(sorted(shared.items())), ((),) * len(self._names), 0)
        todo: list[tuple[State, tuple[str, ...]]] = [(first, ())]
        while todo:
            state, path = todo.pop()
            if state in self.seen:
                continue
            self.seen.add(state)
            if not any(answers is not None for answers in state.answers):
                self.ends.append(dict(state.shared))
            todo += self._steps(state, path)

    def _steps(self, state: State, path: tuple[str, ...]) -> Iterator[tuple[State, tuple[str, ...]]]:
        for place, answers in enumerate(state.answers):
            if answers is None:
                continue
            name = self._names[place]
            try:
                yield self._step(state, place, answers), (*path, name)
            except AssertionError as error:
                raise AssertionError(f"{error}; after the steps {' '.join((*path, name))}") from error
            if state.kills < self._kills:
                yield self._end(state, place, state.kills + 1), (*path, f"kill-{name}")

    def _step(self, state: State, place: int, answers: tuple[Any, ...]) -> State:
        request = self._tape.run(self._processes[place], answers)
        if request is None:
            return self._end(state, place, state.kills)
        shared = dict(state.shared)
        answer = request(shared, self._names[place])
        return State(tuple(sorted(shared.items())), _with(state.answers, place, (*answers, answer)), state.kills)

    def _end(self, state: State, place: int, kills: int) -> State:
        shared = dict(state.shared)
        self._killed(shared, self._names[place])
        return State(tuple(sorted(shared.items())), _with(state.answers, place, None), kills)


def _with(all_answers: tuple[Any, ...], place: int, answers: tuple[Any, ...] | None) -> tuple[Any, ...]:
    return (*all_answers[:place], answers, *all_answers[place + 1 :])
