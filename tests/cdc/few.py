"""The users of the demo, few of them, with their live changes in PostgreSQL: a scenario that is soon told."""

from functools import partial

from demo import seed
from demo.scenario import USERS, Scenario, Seed

_SIZE = seed.sized(200)
_LIVE = ("app", "traffic", "--rate", "50", "--users", "200")
_SEED = Seed(_SIZE.rows, partial(seed.records, _SIZE), _LIVE, (*_LIVE, "--sql"))
FEW = Scenario("few", USERS.view, USERS.query, _SEED, _SEED, partitions=2)
