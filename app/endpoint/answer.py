"""An answer in HTTP: its status, its bytes, and what it is refused with."""

import hashlib
import zlib
from typing import NamedTuple

import brotli
import msgspec
import zstandard

from app import errors
from app.accept import RESPONSE, encoding

Header = tuple[bytes, bytes]

# less than what one packet carries is not sent any sooner
PAYS_BYTES = 1_400
# by what they cost to make, the cheapest first; each at the level that costs least
ENCODINGS = ("zstd", "br", "gzip")
VARY = b"accept, accept-encoding, viewgate-mode, viewgate-after, viewgate-extensions, viewgate-client"
_ZSTD = zstandard.ZstdCompressor(level=1)
_GZIP = 31


class Answer(NamedTuple):
    """headers: all but the length."""

    status: int
    body: bytes
    headers: list[Header]


class Refused(Exception):
    """There is nothing to be executed; the message says what to do. status: in HTTP. code: for the client's program."""

    def __init__(self, status: int, code: str, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers

    def answer(self, media: str) -> Answer:
        """media: the type that the client would have."""
        body = msgspec.json.encode(errors.failure(self.code, str(self)))
        return Answer(self.status, body, [content_type(media), *self.headers])


class Malformed(Refused):
    """What came is no request of GraphQL over HTTP."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BAD_REQUEST", message)


class RequestError(Exception):
    """What is asked is well-formed, and cannot be executed; the message says why. code: for the client's program."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def content_type(media: str) -> Header:
    return b"content-type", (f"{media}; charset=utf-8" if media == RESPONSE else media).encode()


def compressed(answer: Answer, accept_encoding: str) -> Answer:
    """In the cheapest way that the client understands, where that pays."""
    if len(answer.body) < PAYS_BYTES or (name := encoding(accept_encoding, ENCODINGS)) is None:
        return answer
    return Answer(answer.status, packed(name, answer.body), [*answer.headers, (b"content-encoding", name.encode())])


def tagged(answer: Answer, if_none_match: str) -> Answer:
    """With the tag of its content; only that, where the client has the content."""
    tag = f'W/"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    headers = [*answer.headers, (b"etag", tag.encode())]
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    if known & {"*", tag.removeprefix("W/")}:
        return Answer(304, b"", headers)
    return Answer(answer.status, answer.body, headers)


def packed(name: str, body: bytes) -> bytes:
    """name: one of ENCODINGS."""
    if name == "zstd":
        return _ZSTD.compress(body)
    if name == "br":
        return bytes(brotli.compress(body, quality=1))
    return zlib.compress(body, level=1, wbits=_GZIP)
