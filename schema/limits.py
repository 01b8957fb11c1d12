"""What a query may cost: checked before anything is read. Refusals are GraphQL errors with a stable code."""

from collections.abc import Sequence

from graphql import GraphQLError

LONGEST_LIST = 100
MOST_ROWS = 1_000
MOST_TOKENS = 2_000
CACHED_DOCUMENTS = 1_024


def refused(code: str, message: str) -> GraphQLError:
    """The error of a request that is refused. code: for the client's program; message: for its author."""
    return GraphQLError(message, extensions={"code": code})


def check_list(ids: Sequence[str]) -> None:
    """Raises TOO_MANY_IDS."""
    if len(ids) > LONGEST_LIST:
        raise refused("TOO_MANY_IDS", f"{len(ids)} ids were asked for in one list; ask for at most {LONGEST_LIST} at once.")


def check_rows(asked: int) -> None:
    """asked: rows that a request reads in all its fields, repetitions included. Raises TOO_MANY_READS."""
    if asked > MOST_ROWS:
        raise refused("TOO_MANY_READS", f"The request reads {asked} rows; a request may read at most {MOST_ROWS}.")
