"""What happens to a job while it runs, and when: drawn from a seed, so that it can be repeated.

The schedule is repeated to the last step; what each step hits depends on the machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.pairs.pairs import Pair
from tests.pairs.stores import Kind

PAIRS = (
    Pair(Kind.S3, Kind.S3),
    Pair(Kind.S3, Kind.SEAWEEDFS),
    Pair(Kind.S3, Kind.R2),
    Pair(Kind.S3, Kind.GCS),
    Pair(Kind.GCS, Kind.S3),
    Pair(Kind.GCS, Kind.R2),
    Pair(Kind.GCS, Kind.GCS),
    Pair(Kind.GCS, Kind.GCS, through=False),
    Pair(Kind.R2, Kind.R2),
    Pair(Kind.R2, Kind.R2, through=False),
)
"""What is copied from and to."""


class Program(StrEnum):
    """What runs the job."""

    SERVE = "serve"
    PAIR = "pair"
    """Two servers on one data folder: one drives, the other stands by."""
    COPY = "copy"


class Act(StrEnum):
    """One thing that happens. Whatever was ended is started again at once."""

    KILL_WORKER = "kill worker"
    KILL_SERVER = "kill server"
    KILL_ALL = "kill server and workers"
    STOP = "stop"
    PAUSE = "pause, then resume"
    SLOW_DOWN = "503 SlowDown"
    RESET = "reset"
    LOSE_ANSWER = "lose answer"
    TRUNCATE = "truncate"
    FAIL = "500 InternalError"
    DELAY = "delay"
    FLIP = "flip a byte"
    OMIT = "omit ETag and dates"
    MISDATE = "dates that are none"
    MIX_UP = "page of another place"
    REPEAT = "rows twice"
    EMPTY = "pages without rows"


class Ending(StrEnum):
    """How the job ends."""

    COMPLETED = "completed"
    KILLED_ABORTED = "killed, then aborted"
    ABORTED_KILLED = "aborted, then killed"
    ABORTED_DELETED = "killed, aborted, deleted, then killed"


KILLS = (Act.KILL_WORKER, Act.KILL_SERVER, Act.KILL_ALL)
ENDS = (*KILLS, Act.STOP)
LOSSES = (Act.RESET, Act.LOSE_ANSWER, Act.TRUNCATE, Act.FAIL)
ODDITIES = (Act.DELAY, Act.FLIP, Act.OMIT, Act.MISDATE, Act.REPEAT, Act.EMPTY)
FAULTS = (Act.SLOW_DOWN, *LOSSES, *ODDITIES, Act.MIX_UP)

MOST_LOSSES = 5
"""All may meet the same request, which is sent again so often and then given up."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens so long after the step before."""

    after_seconds: float
    act: Act
    times: int
    """How many requests a fault meets."""
    at_source: bool
    """Which side a fault is on."""
    in_upload: bool
    """A kill waits a little for a multipart upload to be under way."""
    place: int
    """Which of several processes, if there are several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The life of one job."""

    seed: int
    program: Program
    pair: Pair
    overwrite: bool
    steps: tuple[Step, ...]
    ending: Ending
    named: bool = False
    """The job names its keys, one by one."""

    def __str__(self) -> str:
        steps = ", ".join(f"{step.after_seconds:.2f} s {step.act}" for step in self.steps)
        steps = steps or "undisturbed"
        kept = "" if self.overwrite else ", nothing overwritten"
        named = ", keys named" if self.named else ""
        return f"{self.program} {self.pair}{kept}{named}: {steps}; {self.ending}"


def undisturbed(pair: Pair, *, overwrite: bool) -> Schedule:
    """The same job when nothing happens to it: what the others have to come to."""
    return Schedule(
        seed=0,
        program=Program.SERVE,
        pair=pair,
        overwrite=overwrite,
        steps=(),
        ending=Ending.COMPLETED,
    )


def drawn(seed: int, pairs: Sequence[Pair] = PAIRS) -> Schedule:
    """Return the schedule of a seed, between one of these pairs."""
    chance = random.Random(f"schedule {seed}")  # noqa: S311 - to be repeatable
    pair = pairs[chance.randrange(1 << 30) % len(pairs)]
    program = chance.choice((Program.SERVE, Program.SERVE, Program.PAIR, Program.COPY))
    ending = Ending.COMPLETED
    if program is not Program.COPY and chance.random() < 0.4:
        ending = chance.choice(tuple(Ending)[1:])
    acts = [*ENDS, *FAULTS] if program is Program.COPY else [*ENDS, Act.PAUSE, *FAULTS]
    steps = [_step(chance, acts) for _ in range(chance.randint(2, 5))]
    # At least one kill each, while there is still something to be lost.
    steps.insert(chance.randint(0, 1), _step(chance, KILLS))
    return Schedule(
        seed=seed,
        program=program,
        pair=pair,
        overwrite=chance.random() < 0.4,
        steps=_bearable(steps),
        ending=ending,
        named=chance.random() < 0.25 and program is not Program.COPY,
    )


def _bearable(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The same steps, with losses that no request can be given up for.

    Nor is a page mixed up twice: that halts a job, as it must.
    """
    steps = _mixed_up_once(steps)
    if sum(step.times for step in steps if step.act in LOSSES) <= MOST_LOSSES:
        return tuple(steps)
    return tuple(replace(step, times=1) if step.act in LOSSES else step for step in steps)


def _mixed_up_once(steps: Sequence[Step]) -> Sequence[Step]:
    mixed_up = [place for place, step in enumerate(steps) if step.act is Act.MIX_UP]
    return [
        replace(step, times=1, act=step.act if place in mixed_up[:1] else Act.DELAY)
        if place in mixed_up
        else step
        for place, step in enumerate(steps)
    ]


def _step(chance: random.Random, acts: Sequence[Act]) -> Step:
    return Step(
        after_seconds=chance.uniform(0.02, 0.6),
        act=chance.choice(acts),
        times=chance.randint(1, 3),
        at_source=chance.random() < 0.5,
        in_upload=chance.random() < 0.5,
        place=chance.randint(0, 7),
    )
