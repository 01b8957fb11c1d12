"""What is asked by a request, out of its body or its URL."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app import headers
from app.accept import JSON, parameters
from app.endpoint.answer import Malformed, Refused
from app.settings import key_of

# a form that a page anywhere may send, without the browser asking first
SIMPLE_TYPES = {"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}
PREFLIGHT = ("apollo-require-preflight", "x-apollo-operation-name", "graphql-require-preflight", *headers.ASKED, headers.CLIENT)
_PREFLIGHT = tuple(name.encode() for name in PREFLIGHT)
SAME_SITE = {b"same-origin", b"none"}
Head = Mapping[bytes, bytes]


class Asked(msgspec.Struct, rename="camel"):
    """One operation, as GraphQL over HTTP has it. document_id, doc_id: of a document that the gateway knows."""

    query: str | None = None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    document_id: str | None = None
    doc_id: str | None = msgspec.field(default=None, name="doc_id")


_BODY = msgspec.json.Decoder(Asked)
_BATCH = msgspec.json.Decoder(list[Asked])
_MAP = msgspec.json.Decoder(dict[str, Any] | None)


def check_preflight(head: Head) -> None:
    """Refuse what a page of another site could have sent in a visitor's name: a browser asks before it sends any of these headers."""
    if head.get(b"sec-fetch-site") in SAME_SITE or any(head.get(name) for name in _PREFLIGHT):
        return
    if _type(head)[0] not in SIMPLE_TYPES:
        return
    raise Refused(
        400,
        "CSRF",
        "A page of another site could have sent this. Send it by POST with content-type: application/json, or with a header "
        f"{PREFLIGHT[0]}: 1. {key_of('csrf')}=false lets everything through.",
    )


def got(query_string: bytes, most_bytes: int) -> Asked:
    """Of a GET. Raises Refused."""
    if len(query_string) > most_bytes:
        raise Refused(414, "TOO_LARGE", f"The URL has more than {most_bytes:,} bytes: send it by POST.")
    try:
        given = dict(parse_qsl(query_string.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=20))
    except ValueError as error:
        raise Refused(400, "BAD_REQUEST", f"The URL's parameters cannot be read: {error}.") from error
    return Asked(
        given.get("query"),
        _map(given, "variables"),
        given.get("operationName") or None,
        _map(given, "extensions"),
        given.get("documentId"),
        given.get("doc_id"),
    )


async def body(receive: Receive, head: Head, most_bytes: int) -> bytes:
    """Of a POST. Raises Refused; ClientDisconnect where it ends before its end."""
    media, charset = _type(head)
    if media != JSON or charset not in {"utf-8", "utf8"}:
        raise Refused(415, "BAD_REQUEST", "The body must be JSON in UTF-8: send content-type: application/json.")
    told = head.get(b"content-length", b"0")
    if told.isdigit() and int(told) > most_bytes:
        raise _too_large(most_bytes)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def posted(text: bytes) -> Asked | list[Asked]:
    """One operation, or several. Raises Refused."""
    try:
        return _BATCH.decode(text) if text.lstrip()[:1] == b"[" else _BODY.decode(text)
    except msgspec.ValidationError as error:
        raise Malformed(f"The request is not JSON as GraphQL over HTTP has it: {error}.") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(400, "BAD_REQUEST", f"The request is not JSON as GraphQL over HTTP has it: {error}.") from error


def _map(given: Mapping[str, str], name: str) -> dict[str, Any] | None:
    text = given.get(name)
    try:
        return _MAP.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"The parameter {name} is no JSON object: {error}.") from error


def _type(head: Head) -> tuple[str, str]:
    """The media type of the body, and its charset."""
    media, _, rest = head.get(b"content-type", b"").decode("latin-1").lower().partition(";")
    return media.strip(), parameters(rest).get("charset", "utf-8").strip('"')


def _too_large(most_bytes: int) -> Refused:
    return Refused(413, "TOO_LARGE", f"The body has more than {most_bytes:,} bytes: ask for less, or in several requests.")
