"""
One coarse timer for every deadline of a process, and the Date of answers.

A connection re-arms its deadline with each request. A timer of the event loop costs 1 to 5 microseconds each time; here
re-arming is one assignment. Theory of operation:

* Who waits is a `Waiter`: it has a `deadline`, in the seconds of `now()`, and `expired()`.
* `watch(waiter)` puts it into the bucket of the tick in which the deadline falls, unless it is in an earlier one.
* When a bucket comes up, a waiter whose deadline has moved on goes into its new bucket; one whose deadline is None is
  dropped; the others get `expired()`. So a deadline may be moved later, or cleared, by assigning to it alone;
  only one that comes nearer, or is set anew, needs `watch`.
* `forget(waiter)` takes it out at once, so that what is over is not kept in memory until its deadline.
* Ticks are a second apart, so a deadline is up to a second late, never early.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol


class Waiter(Protocol):
    """
    What can have a deadline.

    deadline: when, or None for never.
    due: the tick it is kept under, None when not kept; `Deadlines` writes it, nobody else.
    """

    deadline: float | None
    due: int | None

    def expired(self) -> None:
        """
        The deadline has passed. Called once; from the timer, never from within `watch`.
        """


class Timer:
    """
    A single deadline for those that are not a Waiter themselves.
    """

    __slots__ = ("_deadlines", "call", "deadline", "due")

    def __init__(self, deadlines: Deadlines, call: Callable[[], object]) -> None:
        self._deadlines = deadlines
        self.call = call
        self.deadline: float | None = None
        self.due: int | None = None

    def cancel(self) -> None:
        """
        Never mind.
        """
        self._deadlines.forget(self)

    def expired(self) -> None:
        self.deadline = None
        self.call()


class Deadlines:
    """
    The timer wheel.

    now: a monotonic clock, in seconds; `loop.time`, or `Clock.seconds` in tests.
    call_later: (seconds, function) -> something with cancel(); `loop.call_later`, or `Clock.callLater`.
    wall: the time of day for the Date header, in seconds since 1970.
    """

    TICK_S = 1.0

    def __init__(
        self,
        now: Callable[[], float],
        call_later: Callable[..., Any],
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.now = now
        self._call_later = call_later
        self._wall = wall
        self._buckets: dict[int, set[Waiter]] = {}
        self._next = 0
        self._call: Any = None
        self._each_tick: list[Callable[[], object]] = []

    def start(self) -> None:
        """
        Begin to tick. Deadlines set before are kept.
        """
        self._next = int(self.now()) + 1
        self._schedule()

    def stop(self) -> None:
        """
        No more ticks; nothing expires any more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._buckets.clear()

    def each_tick(self, call: Callable[[], object]) -> None:
        """
        Call this once a second as long as the wheel turns.
        """
        self._each_tick.append(call)

    def watch(self, waiter: Waiter) -> None:
        """
        See to it that waiter.expired() is called after waiter.deadline.
        """
        deadline = waiter.deadline
        assert deadline is not None
        # The bucket is the first tick at which the deadline is over, so nothing expires early.
        due = int(deadline) + 1
        if waiter.due is None or due < waiter.due:
            self._take_out(waiter)
            waiter.due = due
            bucket = self._buckets.get(due)
            if bucket is None:
                self._buckets[due] = {waiter}
            else:
                bucket.add(waiter)

    def within(self, waiter: Waiter, seconds: float) -> None:
        """
        Its deadline is so many seconds from now.
        """
        waiter.deadline = self.now() + seconds
        self.watch(waiter)

    def forget(self, waiter: Waiter) -> None:
        """
        It is over: no deadline any more.
        """
        waiter.deadline = None
        self._take_out(waiter)

    def _take_out(self, waiter: Waiter) -> None:
        if waiter.due is not None:
            bucket = self._buckets.get(waiter.due)
            if bucket is not None:
                bucket.discard(waiter)
            waiter.due = None

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """
        A Timer that calls in so many seconds, up to one later.
        """
        timer = Timer(self, call)
        self.within(timer, seconds)
        return timer

    def date(self) -> bytes:
        """
        The time of day as RFC 9110 section 5.6.7 writes it.
        """
        return formatdate(self._wall() if self._wall else None, usegmt=True).encode()

    def _schedule(self) -> None:
        self._call = self._call_later(max(0.0, self._next - self.now()), self._tick)

    def _tick(self) -> None:
        now = self.now()
        current = int(now)
        for due in range(self._next, current + 1):
            # One that expires may forget another of the same bucket.
            for waiter in self._buckets.pop(due, ()):
                if waiter.due == due:
                    self._come_up(waiter, now)
        self._next = current + 1
        self._schedule()
        for call in self._each_tick:
            call()

    def _come_up(self, waiter: Waiter, now: float) -> None:
        waiter.due = None
        if waiter.deadline is None:
            return
        if waiter.deadline <= now:
            waiter.expired()
        else:
            self.watch(waiter)
