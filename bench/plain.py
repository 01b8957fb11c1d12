"""The peer: a consumer as people write it, with one HINCRBY for each effect in redis-py's pipeline. At least once: it counts twice
what is delivered twice."""

import uvloop
from redis.asyncio import Redis

from bench.contender import Task, open_consumer
from bench.events import Counts
from bench.stopwatch import Run, Stopwatch
from bench.stored import stored_counts
from demo.servers.server import Say
from projectors.log import WAIT_MS
from projectors.records.envelope import decoder
from schema.user import Follows


class Plain:
    """Fetch, pipeline, commit."""

    promise = "at least once: what is delivered twice counts twice; in Redis. Its keys are shorter, and it reads one topic, not four"

    async def prepare(self, say: Say) -> None:
        """It is here."""

    def measure(self, task: Task) -> Run:
        return uvloop.run(_project(task))

    async def stored(self, task: Task) -> Counts:
        return await stored_counts(task.redis, "user:*", ("followingCount", "followerCount"), lambda key: key.removeprefix("user:"))


async def _project(task: Task) -> Run:
    decode = decoder(Follows)
    stopwatch = Stopwatch(task.events)
    consumer = open_consumer(task, "earliest")
    consumer.subscribe([task.topic_prefix + Follows.source.topic])
    await consumer.start()
    redis = Redis.from_url(task.redis)
    try:
        while True:
            fetched = await consumer.getmany(timeout_ms=WAIT_MS)
            if not fetched:
                continue
            stopwatch.in_hand()
            pipeline = redis.pipeline(transaction=False)
            for records in fetched.values():
                for record in records:
                    change = decode(record.value)
                    for row, step in ((change.before, -1), (change.after, 1)):
                        if row is not None:
                            pipeline.hincrby(f"user:{row.follower_id}", "followingCount", step)
                            pipeline.hincrby(f"user:{row.followee_id}", "followerCount", step)
            await pipeline.execute()
            last = stopwatch.acknowledged(sum(map(len, fetched.values())))
            await consumer.commit()
            if last:
                return stopwatch.run()
    finally:
        await redis.aclose()
        await consumer.stop()
