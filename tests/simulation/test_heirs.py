"""Which generation readers get when the live one is lost, with the register that names it: fixed histories, beside the random ones."""

import random

from tests.simulation.world import World


async def _begun() -> World:
    """g1 and what came, not read yet."""
    world, rng = World(), random.Random(5)
    for _ in range(20):
        world.change(rng)
    await world.open(by_itself=True)
    return world


def _lose(world: World, name: str) -> None:
    """The record is gone, and so is every projector that remembers it."""
    register = world.cluster.nodes[0]
    del register.records[name]
    register.pointer = None
    world.owners = [owner for owner in world.owners if owner.generation != name]


async def test_of_two_that_are_built_the_older_is_promoted_when_there_is_no_other() -> None:
    world = await _begun()
    for _ in range(2):
        await world.open(by_itself=False)
    _lose(world, "g1")
    await world.heal()
    assert await world.generations.live() == "g2"
    await world.exact()


async def test_what_was_live_before_is_live_again_rather_than_what_is_being_built() -> None:
    world = await _begun()
    await world.heal()
    await world.open(by_itself=False)
    second = (await world.fed())[-1]
    owner = await world.begin(second, 9)
    while not await world.promote(second):
        await world.step(owner)
    await world.open(by_itself=False)
    await world.heal()
    assert [record.state for record in await world.fed()] == ["retired", "live", "building"]
    _lose(world, "g2")
    await world.heal()
    assert await world.generations.live() == "g1"
    await world.exact()


async def test_what_is_built_waits_for_the_first_that_is_promoted_by_itself() -> None:
    world = await _begun()
    await world.open(by_itself=False)
    second = (await world.fed())[-1]
    await world.step(await world.begin(second, 9), rounds=30)
    assert await world.generations.live() is None
    await world.heal()
    assert await world.generations.live() == "g1"
