"""Connections to one server of Redis, which tell what they met. Sends nothing else."""

import re
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

IN_CLUSTER = "it is a node of a Redis Cluster: write redis+cluster:// in place of redis://, or rediss+cluster:// of rediss://"


class Pool(BlockingConnectionPool):
    """met: how often a connection met another server than the one before, by its run id, which is the last one's; b"": it tells none.

    It was restarted then, or is a replica that was promoted: what Redis had acknowledged may be lost. in_cluster: whether it is to be a
    node of a Redis Cluster.
    """

    def __init__(self, *, in_cluster: bool = False, **options: Any) -> None:
        # where they are on, a connection that died while idle is not found out before it is used
        quiet = MaintNotificationsConfig(enabled=False)
        super().__init__(redis_connect_func=self._meet, maint_notifications_config=quiet, **options)
        self.met = 0
        self.run_id = b""
        self._in_cluster = in_cluster

    async def _meet(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        try:
            told: bytes = await connection.read_response(disable_decoding=True)
        except ResponseError:
            told = b""
        if b"redis_mode:cluster" in told and not self._in_cluster:
            raise RedisConnectionError(IN_CLUSTER)
        found = re.search(rb"run_id:(\w+)", told)
        if found is None or found[1] != self.run_id:
            self.met, self.run_id = self.met + 1, found[1] if found else b""
