"""Places that are set aside for containers to come, and templates of plans: quicker, and else as ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt import _native
from pyrt.engine.engine import open_engine
from pyrt.errors import NameInUse, UsageError
from pyrt.runtime.options import Limits, make_options

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from pyrt.engine.recipe import Mould
    from pyrt.engine.results import Completed
    from tests.conftest import OpenEngine
    from tests.leakcheck import State

pytestmark = pytest.mark.root


async def run(engine: Engine, script: str, **options: Any) -> Completed:
    """A container whose end is waited for, until nothing of it is left and the next has its place."""
    done = await engine.run("host", ["sh", "-c", script], **options)
    await engine.settled()
    return done


def steps_of_engine(done: Completed) -> list[str]:
    return [mark.name for mark in done.timing.engine]


def folders(engine: Engine) -> dict[int, str]:
    """Containers by the inodes of their folders."""
    return {os.stat(engine.layout.folder(name)).st_ino: name for name in os.listdir(engine.layout.containers)}


def can_be_passed_on() -> bool:
    """With an index overlayfs refuses the folder of a mount that is about to go."""
    return Path("/sys/module/overlay/parameters/index").read_text().startswith("N")


async def test_what_finds_its_place_ready_is_recorded_while_it_runs(cold: Engine) -> None:
    first, second = [await run(cold, "true") for _ in range(2)]
    assert "record it" in steps_of_engine(first)
    assert not {"record it", "make its folder"} & {*steps_of_engine(second)}
    events = [event async for event in cold.events(0, follow=False)]
    assert [event.seq for event in events] == list(range(1, 9))
    assert events == sorted(events, key=lambda event: event.time)


async def test_the_folder_is_of_one_that_is_gone_and_shows_nothing_of_it(cold: Engine) -> None:
    await run(cold, "true")
    before = folders(cold)
    await run(cold, "touch /tmp/mine; mkdir -p /var/mine/deep; chmod 1777 /; chown 1:1 /; touch -d 2001-01-01 /")
    renamed = [ino for ino, name in folders(cold).items() if before.get(ino, name) != name]
    assert len(renamed) == int(can_be_passed_on())
    for _ in range(len(before) + 1):
        done = await run(cold, "stat -c '%a %u:%g' /; test ! -e /tmp/mine; test ! -e /var/mine; ls -A /var | wc -l")
        assert (done.exit_code, done.stdout.split()[:2]) == (0, [b"755", b"0:0"])


async def test_what_is_kept_or_has_a_name_is_recorded_first(cold: Engine) -> None:
    await run(cold, "true")
    named = await run(cold, "true", name="box")
    assert "record it" in steps_of_engine(named)
    assert "make its folder" not in steps_of_engine(named)
    container = await cold.start("host", make_options(["true"]), keep=True)
    assert "record it" in [mark.name for mark in container.timing.engine]
    container.close_streams()
    await container.wait()
    await cold.remove(container.id)


async def test_a_refusal_takes_no_place(cold: Engine) -> None:
    await run(cold, "true")
    async with cold.open_container("host", ["sleep", "1000"], name="taken"):
        before = {*cold.journal.parked(cold.owner.id)}
        with pytest.raises(NameInUse):
            await cold.run("host", ["true"], name="taken")
        with pytest.raises(UsageError):
            await cold.run("host", ["true"], name="no name")
        assert {*cold.journal.parked(cold.owner.id)} == before
        assert "make its folder" not in steps_of_engine(await cold.run("host", ["true"]))


async def test_many_at_once_have_each_its_own(cold: Engine) -> None:
    found: set[str] = set()

    async def some() -> None:
        for _ in range(10):
            done = await cold.run("host", ["sh", "-c", "hostname; cat /proc/self/uid_map"])
            assert done.stdout.splitlines()[0] == done.id[:12].encode()
            found.add(done.stdout.decode())

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(some)
    assert len({text.splitlines()[0] for text in found}) == len({text.splitlines()[1] for text in found}) == 80
    await cold.settled()
    assert {*cold.journal.leases().values()} == {*cold.journal.parked(cold.owner.id)}


async def test_places_go_with_their_engine(opened: OpenEngine) -> None:
    async with opened() as engine:
        await run(engine, "true")
        assert engine.journal.parked(engine.owner.id)
    async with opened() as engine:
        assert engine.journal.leases() == {}
        assert os.listdir(engine.layout.containers) == []


def mould_of(engine: Engine, command: str, **options: Any) -> Mould:
    image = engine.recipes.image(engine.find_image, "host")
    return engine.recipes.mould(image, make_options([command], **options), keep=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hostname": "box", "user": "1000:1000"},
        {"network": "host", "limits": Limits(memory=1 << 28, pids=10)},
        # Looks like the first host id of the first of them: that one makes no template.
        {"init": True, "dns": ("192.0.2.1",), "env": (("A", "1879048192"),)},
    ],
    ids=str,
)
async def test_a_plan_from_a_template_is_the_one_that_would_have_been_compiled(
    cold: Engine, tmp_path: Path, options: dict[str, Any]
) -> None:
    mould = mould_of(cold, "true", **options)
    for number in range(4):
        container, base = f"{number:064x}", 0x7000_0000 + number * 0x10_0000
        _native.make_upper(cold.layout.folder(container))
        assert texts(mould.plan(container, base)) == texts(_native.compile(*mould.fill(container, base)))
    assert mould.template is not None
    assert mould.template.fill("f" * 64, 0x7000_0000) is None  # It has no folder.
    assert mould.template.fill("0" * 63, 0x7000_0000) is None
    await cold.janitor.remove_folders(os.listdir(cold.layout.containers))


def texts(plan: _native.Plan) -> list[str]:
    return [f"{step.part} {step.name} {step.text}" for step in plan.steps()]


async def test_what_a_template_leads_astray_is_told_as_ever(cold: Engine) -> None:
    for _ in range(3):
        await run(cold, "true")
    for place in cold.journal.parked(cold.owner.id):
        os.rename(cold.layout.folder(place), cold.layout.root / place)
    with pytest.raises(Exception, match="upper"):
        await cold.run("host", ["sh", "-c", "true"])
    for place in cold.journal.parked(cold.owner.id):
        os.rename(cold.layout.root / place, cold.layout.folder(place))


@pytest.fixture
async def cold(state: State, leakcheck: object) -> Any:
    """An engine that makes no containers beforehand, but their places."""
    async with open_engine(state.root, run_dir=state.run, warm=0) as engine:
        yield engine
