"""The peer: a consumer as people write it, with one HINCRBY for each effect in redis-py's pipeline. At least once: it counts twice
what is delivered twice."""

import uvloop
from redis.asyncio import Redis

from bench.contender import Run, Stopwatch, Task, open_consumer
from bench.events import Counts
from bench.stored import stored_counts
from projectors.log import WAIT_MS
from projectors.records.envelope import decoder
from schema.user import Follows


class Plain:
    """Fetch, pipeline, commit."""

    def measure(self, task: Task) -> Run:
        return uvloop.run(_project(task))

    async def stored(self, redis_url: str) -> Counts:
        return await stored_counts(redis_url, "user:*", ("followingCount", "followerCount"), lambda key: key.removeprefix("user:"))


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
