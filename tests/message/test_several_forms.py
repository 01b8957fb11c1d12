"""One view from tables that come in several forms goes the whole road: it equals SQL, and what is no fact is buried with its reason."""

import random
from datetime import UTC, datetime

import msgspec

from demo.servers.server import Server
from schema.fields import Row
from tests.faults.test_records import dead_letters
from tests.message.activity import Follows, Likes, Tweets, Users, UserView
from tests.message.running import asked, audited, projecting
from tests.road import Road, open_road

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MS = 1_767_323_045_000
USERS, STEPS = 12, 600
LIKE = {"type": "unliked", "like_id": 1, "user_id": 1, "hearts": 1, "created_at": "2026-01-02T03:04:05Z"}
POISON: dict[bytes, tuple[object, str]] = {
    b"part of the row": ({"type": "unliked", "like_id": 1, "user_id": 1}, "a fact that takes a row back tells the whole row, as it was"),
    b"a number as a text": ({**LIKE, "user_id": "1"}, "Expected `int`, got `str` - at `$.user_id`"),
    b"a null": ({**LIKE, "hearts": None}, "Expected `int`, got `null` - at `$.hearts`"),
    b"no type": ({"like_id": 1}, "the fact has no field 'type', which tells its type"),
    b"no time": ({**LIKE, "at": "noon"}, "'at' is no time, in RFC 3339 or Unix ms"),
    b"an envelope": ({"op": "c", "before": None, "after": LIKE}, "the fact has no field 'type'"),
}


def publish(road: Road, seed: int) -> None:
    """Users come, are renamed and go; they follow, like and tweet, and take it back."""
    dice, there = random.Random(seed), list[Row]()
    names = {key: Users(key, f"user{key}") for key in range(1, USERS + 1)}
    for user in names.values():
        road.publisher.publish("c", None, user, MS)
    for number in range(STEPS):
        who, whom = dice.randint(1, USERS + 1), dice.randint(1, USERS + 1)
        match dice.randint(0, 5):
            case 0 if who in names:
                before, names[who] = names[who], Users(who, f"user{who}_{number}")
                road.publisher.publish("u", before, names[who], MS)
            case 1 if there:
                road.publisher.publish("d", there.pop(dice.randrange(len(there))), None, MS)
            case kind:
                one = [Follows(number, who, whom), Likes(number, who, number % 5, AT), Tweets(number, who, None)][kind % 3]
                there.append(one)
                road.publisher.publish("c", None, one, MS)
    road.publisher.publish("d", names[USERS], None, MS)


def send_others(road: Road) -> None:
    """What is nobody's, and what is no fact."""
    for number in range(20):
        muted = {"type": "muted", "user_id": number, "at": "whenever"}
        road.publisher.send("activity", b"%d" % number, msgspec.json.encode(muted))
        road.publisher.send("tweets", b"%d" % number, b"not even JSON", [("type", b"tweet created")] if number == 0 else ())
        road.publisher.send("tweets", b"%d" % number, b"\x00no JSON", [("type", b"tweet seen")])
    for key, (value, _) in POISON.items():
        road.publisher.send("activity", key, msgspec.json.encode(value))
    road.publisher.send("activity", None, msgspec.json.encode(LIKE))


async def test_a_view_of_several_forms_equals_sql_and_dead_letters_have_their_reasons(
    kafka_at: Server, redis_at: Server, postgres_at: Server
) -> None:
    async with open_road(kafka_at, redis_at, postgres_at, view=UserView, partitions=2) as road:
        publish(road, 1)
        send_others(road)
        async with projecting(road):
            await road.sunk()
            assert await road.agree() == USERS - 1
            publish_later(road)
            await road.sunk()
            assert await road.agree() == USERS
            assert await audited(road) == []
            query = f'{{ user(id: "{USERS + 2}") {{ username tweetCount followingCount followerCount likeCount hearts }} }}'
            expected = {"username": "late", "tweetCount": 1, "followingCount": 1, "followerCount": 1, "likeCount": 1, "hearts": 9}
            answers = await asked(road, query)
            assert [answer.json() for answer in answers.values()] == [{"data": {"user": expected}}] * len(answers)
        letters = await dead_letters(road, len(POISON) + 21)
    reasons = {letter.key: dict(letter.headers)["viewgate-reason"].decode() for letter in letters}
    for key, (_, reason) in POISON.items():
        assert reason in reasons[key], key
    assert "has no key" in reasons[None]
    untyped = [reason for key, reason in reasons.items() if key is not None and key.isdigit()]
    assert len(untyped) == 20
    assert sum("the fact has no header 'type'" in reason for reason in untyped) == 19
    assert sum("JSON is malformed" in reason for reason in untyped) == 1


def publish_later(road: Road) -> None:
    late = USERS + 2
    rows: list[Row] = [Tweets(9001, late, "hello"), Follows(9002, late, late), Likes(9003, late, 9, AT), Likes(9004, late, 8, AT)]
    for row in rows:
        road.publisher.publish("c", None, row, MS)
    road.publisher.publish("d", rows[-1], None, MS)
    road.publisher.publish("c", None, Users(late, "late"), MS)
