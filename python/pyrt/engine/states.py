"""The life of a container as one table.

States and transitions are data; a transition that is not in the table raises and changes nothing. What a
transition does to the world, and who records it, is not known here.

::

                    +----------------- start -----------------+------------------+
                    v                                         |                  |
    create     +----------+  started  +---------+   stop  +----------+  exit  +--------+
    ------->   | starting | --------> | running | ------> | stopping | -----> | exited |
    (created)  +----------+           +---------+         +----------+        +--------+
                    | fail              |  ^  \\_________ exit ____________________^  |
                    v            pause  v  | unpause                             await restart
                +--------+          +--------+                                   v
                | failed |          | paused |                              +------------+
                +--------+          +--------+                              | restarting | -- start
                                                                            +------------+ -- give up -> exited
    created, exited, failed, restarting -- remove --> removing -- removed --> (gone)
    running, paused, stopping ------------ vanish ------^
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pyrt.errors import IllegalTransition


class State(StrEnum):
    """Where a container is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"
    RESTARTING = "restarting"
    REMOVING = "removing"
    REMOVED = "removed"


class Verb(StrEnum):
    """What moves a container from one state to another."""

    START = "start"
    STARTED = "started"
    FAIL = "fail"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    STOP = "stop"
    EXIT = "exit"
    VANISH = "vanish"
    LOSE = "lose"
    AWAIT_RESTART = "await restart"
    GIVE_UP = "give up"
    REMOVE = "remove"
    REMOVED = "removed"


S, V = State, Verb

# One verb leads to one state, whatever state it comes from: so a transition is a single conditional
# UPDATE in the journal, and two processes can't both make it.
TABLE: Final[dict[Verb, tuple[frozenset[State], State]]] = {
    V.START: (frozenset({S.CREATED, S.EXITED, S.FAILED, S.RESTARTING}), S.STARTING),
    V.STARTED: (frozenset({S.STARTING}), S.RUNNING),
    V.FAIL: (frozenset({S.STARTING}), S.FAILED),
    V.PAUSE: (frozenset({S.RUNNING}), S.PAUSED),
    V.UNPAUSE: (frozenset({S.PAUSED}), S.RUNNING),
    V.STOP: (frozenset({S.RUNNING, S.PAUSED}), S.STOPPING),
    V.EXIT: (frozenset({S.RUNNING, S.PAUSED, S.STOPPING}), S.EXITED),
    # The end of one of which nothing is to be kept: both at once, for most containers end like that.
    V.VANISH: (frozenset({S.RUNNING, S.PAUSED, S.STOPPING}), S.REMOVING),
    # Its supervisor is gone and nobody saw the end: at any moment after the start was asked for.
    V.LOSE: (frozenset({S.STARTING, S.RUNNING, S.PAUSED, S.STOPPING}), S.EXITED),
    V.AWAIT_RESTART: (frozenset({S.EXITED, S.FAILED}), S.RESTARTING),
    # Somebody stopped it while it waited for its restart.
    V.GIVE_UP: (frozenset({S.RESTARTING}), S.EXITED),
    V.REMOVE: (frozenset({S.CREATED, S.EXITED, S.FAILED, S.RESTARTING}), S.REMOVING),
    V.REMOVED: (frozenset({S.REMOVING}), S.REMOVED),
}

LIVE: Final = frozenset({S.STARTING, S.RUNNING, S.PAUSED, S.STOPPING})
"""States in which processes of the container may exist."""


def target(verb: Verb) -> State:
    """The state that ``verb`` leads to."""
    return TABLE[verb][1]


def sources(verb: Verb) -> frozenset[State]:
    """The states in which ``verb`` is legal."""
    return TABLE[verb][0]


def advance(state: State, verb: Verb, *, what: str = "the container") -> State:
    """The state after ``verb``; raises IllegalTransition, naming ``what``, where the table has no such way."""
    allowed, after = TABLE[verb]
    if state not in allowed:
        raise refusal(state, verb, what)
    return after


def refusal(state: State, verb: Verb, what: str) -> IllegalTransition:
    """The error that says why ``verb`` is illegal in ``state``."""
    hint = "stop it first, or force the removal" if verb is V.REMOVE and state in LIVE else None
    return IllegalTransition(f"{what} is {state}: it can't be made to {_SAYING.get(verb, verb)}", hint=hint)


_SAYING: Final[dict[Verb, str]] = {V.STARTED: "run", V.REMOVE: "go away", V.REMOVED: "be gone", V.LOSE: "be lost"}
