"""Which versions a server loads as aliases move and loads fail, without models."""

import asyncio
import errno
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.errors import UserError
from switchyard.components.serving import swapper
from switchyard.components.serving.batcher import Batcher
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout
from switchyard.components.serving.served_model import Limits, ServedModel

INFO = BundleInfo("pytorch", "x:Y", "regression", "label", [], [])


class Registry:
    """A registry's aliases, and the errors that versions raise when they are loaded."""

    name, selector, tracks_alias = "m", "champion", True

    def __init__(self):
        self.aliases, self.errors, self.loads = {"champion": "1"}, {}, []

    def alias(self, name):
        return self.aliases.get(name)

    @contextmanager
    def open(self, version):
        yield SimpleNamespace(version=version)

    def load(self, opened, limits, observe, release):
        self.loads.append(opened.version)
        if error := self.errors.get(opened.version):
            raise error
        model = Batcher(lambda columns: columns, max_rows=1, max_waiting=1, observe=observe)
        return ServedModel(opened.version, INFO, model, release)


@pytest.fixture
def registry(monkeypatch):
    found = Registry()
    monkeypatch.setattr(swapper, "load_model", found.load)
    return found


def served(registry, *steps):
    """Returns the version that is served after each step, a function that changes the registry, and a look at it."""

    async def main():
        rollout = Rollout(0.5)
        reloader = swapper.ModelReloader(registry, rollout, Limits(), Metrics(), "challenger", lambda line: None)
        await reloader.start("1")
        found = []
        for step in steps:
            step()
            await reloader.look()
            found.append((rollout.champion.version, rollout.canary.version if rollout.canary else None))
            if step is stop:
                model = rollout.canary
                rollout.set_canary(None)
                reloader.canary_stopped(model, "slow")
        await reloader.close()
        return found

    return asyncio.run(main())


def stop():
    """Stands for the stop rule, see `served`."""


def nothing():
    """A step in which nothing changes."""


def test_a_refused_version_is_tried_again_when_the_alias_comes_back_to_it(registry):
    def move(version):
        return lambda: registry.aliases.update(champion=version)

    def mend():
        registry.errors.clear()
        registry.aliases.update(champion="2")

    registry.errors["2"] = UserError("its files were changed")
    champions = [champion for champion, _ in served(registry, move("2"), nothing, move("1"), move("2"), move("1"), mend)]
    assert champions == ["1", "1", "1", "1", "1", "2"]
    assert registry.loads == ["1", "2", "2", "2"], "once each time that the alias moves"


def test_a_stopped_canary_comes_back_when_its_alias_does(registry):
    def canary(version):
        return lambda: registry.aliases.update(challenger=version)

    steps = [canary("2"), stop, nothing, canary(None), canary("2")]
    assert [found for _, found in served(registry, *steps)] == ["2", "2", None, None, "2"]


@pytest.mark.parametrize(("pause", "loads"), [(0.0, ["1", "2", "2"]), (60.0, ["1", "2"])])
def test_an_error_that_may_pass_is_tried_again_after_a_pause(registry, monkeypatch, pause, loads):
    def mend():
        registry.errors.clear()

    monkeypatch.setattr(swapper, "FIRST_PAUSE", pause)
    registry.aliases["champion"], registry.errors["2"] = "2", OSError("no space left on device")
    served(registry, nothing, mend)
    assert registry.loads == loads


def test_a_full_disk_is_no_unreachable_registry_and_is_said_once(registry, tmp_path):
    said, metrics = [], Metrics()

    async def main():
        reloader = swapper.ModelReloader(registry, Rollout(0.5), Limits(), metrics, None, said.append)
        await reloader.start("1")
        opened, polling = registry.open, asyncio.create_task(reloader.follow(0.01))
        for error in (OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "model.pt2")), ConnectionError("refused")):
            seen = len(said)

            @contextmanager
            def failing(version, error=error):
                raise error
                yield

            registry.open, registry.aliases["champion"] = failing, "2"
            while len(said) == seen:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            reachable.append(metrics.registry_reachable._value.get())
        registry.open = opened
        while "swapped out" not in said[-1] and "again" not in said[-1]:
            await asyncio.sleep(0.01)
        polling.cancel()
        await reloader.close()

    reachable = []
    asyncio.run(main())
    assert said[0].startswith("a new version cannot be copied; still serving the current version: the disk is full (")
    assert "Free some space there, or set TMPDIR" in said[0]
    assert said[1] == "registry unreachable; still serving the current version: refused"
    assert set(said[2:4]) == {"version 2 is served, version 1 is swapped out", "the registry is reachable again"}
    assert reachable == [1, 0]
