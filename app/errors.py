"""What a client is told about an error: a stable code, and nothing of our insides. docs/errors.md lists the codes."""

import secrets
from collections.abc import Iterable

import structlog
from graphql import GraphQLError, GraphQLFormattedError, GraphQLSyntaxError
from strawberry.types.execution import ExecutionResult, PreExecutionError

log = structlog.stdlib.get_logger()


def failure(code: str, message: str) -> dict[str, object]:
    """A whole GraphQL response that says only this."""
    return {"errors": [{"message": message, "extensions": {"code": code}}]}


def formatted(result: ExecutionResult) -> list[GraphQLFormattedError]:
    """The errors of a result, each with extensions.code. What nobody foresaw is logged, and told by the id it is logged under."""
    invalid = isinstance(result, PreExecutionError)
    return [_formatted(error, invalid) for error in result.errors or ()]


def code_of(errors: Iterable[GraphQLFormattedError]) -> str:
    """The code of the first error, "ok" if there is none."""
    return next((str(error["extensions"]["code"]) for error in errors), "ok")


def masked(error: BaseException) -> str:
    """Log an error with its stack trace under a new id; return what the client is told."""
    number = secrets.token_hex(4)
    log.error("internal_error", id=number, exc_info=error)
    return f"Internal error; look for {number} in the log."


def _formatted(error: GraphQLError, invalid: bool) -> GraphQLFormattedError:
    told = error.formatted
    if error.extensions and "code" in error.extensions:
        return told
    code = _code(error, invalid)
    if code == "INTERNAL":
        told["message"] = masked(error.original_error or error)
    told["extensions"] = {"code": code}
    return told


def _code(error: GraphQLError, invalid: bool) -> str:
    if isinstance(error, GraphQLSyntaxError):
        return "GRAPHQL_PARSE_FAILED"
    if invalid and error.original_error is None:
        return "GRAPHQL_VALIDATION_FAILED"
    # graphql-core reports variables before anything has a path; their own error is a GraphQLError
    if error.path is None and isinstance(error.original_error, GraphQLError | None):
        return "BAD_USER_INPUT"
    return "INTERNAL"
