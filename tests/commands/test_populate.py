"""`viewgate populate`, told too little."""

from tests.commands.running import run


async def test_populate_without_its_topic_names_the_setting() -> None:
    code, out, errors = await run("populate")
    assert (code, out) == (2, "")
    assert errors == "VIEWGATE_VIEW_TOPIC: is not set: name the topic that `viewgate project` publishes with the same setting.\n"
