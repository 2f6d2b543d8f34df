"""The table of a container's life: what it allows, and that what it does not allow changes nothing."""

from __future__ import annotations

import itertools

import pytest

from pyrt.engine.states import LIVE, TABLE, State, Verb, advance, sources, target
from pyrt.errors import IllegalTransition

LIFE = [
    (State.CREATED, Verb.START, State.STARTING),
    (State.STARTING, Verb.STARTED, State.RUNNING),
    (State.STARTING, Verb.FAIL, State.FAILED),
    (State.RUNNING, Verb.PAUSE, State.PAUSED),
    (State.PAUSED, Verb.UNPAUSE, State.RUNNING),
    (State.RUNNING, Verb.STOP, State.STOPPING),
    (State.STOPPING, Verb.EXIT, State.EXITED),
    (State.RUNNING, Verb.EXIT, State.EXITED),
    (State.RUNNING, Verb.VANISH, State.REMOVING),
    (State.EXITED, Verb.AWAIT_RESTART, State.RESTARTING),
    (State.RESTARTING, Verb.START, State.STARTING),
    (State.EXITED, Verb.START, State.STARTING),
    (State.EXITED, Verb.REMOVE, State.REMOVING),
    (State.REMOVING, Verb.REMOVED, State.REMOVED),
]


@pytest.mark.parametrize(("before", "verb", "after"), LIFE)
def test_a_container_lives_along_the_table(before: State, verb: Verb, after: State) -> None:
    assert advance(before, verb) is after


@pytest.mark.parametrize(("state", "verb"), list(itertools.product(State, Verb)))
def test_every_way_is_in_the_table_or_is_refused(state: State, verb: Verb) -> None:
    if state in sources(verb):
        assert advance(state, verb) is target(verb)
    else:
        with pytest.raises(IllegalTransition, match=f"quiet-otter is {state}"):
            advance(state, verb, what="quiet-otter")


def test_whatever_lives_can_be_lost_and_nothing_else() -> None:
    assert sources(Verb.LOSE) == LIVE


def test_nothing_that_lives_can_be_removed() -> None:
    assert not sources(Verb.REMOVE) & LIVE


def test_every_state_is_left_again_but_the_last() -> None:
    left = frozenset[State]().union(*(allowed for allowed, _ in TABLE.values()))
    assert left == frozenset(State) - {State.REMOVED}


def test_every_state_is_reached() -> None:
    assert {after for _, after in TABLE.values()} | {State.CREATED} == set(State)
