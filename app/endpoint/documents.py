"""Documents that are named instead of sent: those of a manifest, and those that clients have sent before."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.endpoint.answer import Malformed, RequestError
from app.endpoint.asked import Asked
from app.settings import SettingsError, key_of

SHA256 = "sha256:"
log = structlog.stdlib.get_logger()


class _Operation(msgspec.Struct):
    id: str
    body: str


class _Manifest(msgspec.Struct):
    operations: list[_Operation]


def read_manifest(path: str) -> Mapping[str, str]:
    """The trusted documents by their ids: of graphql-codegen and Relay (an object of texts), or of Apollo. Raises SettingsError."""
    if not path:
        return {}
    try:
        content = Path(path).read_bytes()
        try:
            return msgspec.json.decode(content, type=dict[str, str])
        except msgspec.ValidationError:
            return {one.id: one.body for one in msgspec.json.decode(content, type=_Manifest).operations}
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"{key_of('trusted_documents')}: {path} is no manifest of documents, an object of texts by their ids or Apollo's: {error}."
        ) from error


class Named:
    """Finds the text of what is asked.

    trusted: texts by their ids. only_trusted: whether all others are refused. kept: how many documents are remembered that clients have
    sent with their hash (Apollo's automatic persisted queries), the newest of them; 0: none.
    """

    def __init__(self, trusted: Mapping[str, str], only_trusted: bool, kept: int) -> None:
        self._trusted, self._only, self._most = trusted, only_trusted, kept
        self._texts = frozenset(trusted.values())
        self._cold = dict(trusted)
        self._kept: OrderedDict[str, str] = OrderedDict()

    async def warm(self, plan: Callable[[str], Sequence[Exception]]) -> None:
        """Have every trusted document planned that is not yet. plan: says why one must not be executed."""
        while self._cold:
            name, text = self._cold.popitem()
            for error in plan(text):
                log.warning("trusted_document_invalid", id=name, error=str(error))
            await asyncio.sleep(0)

    def text(self, asked: Asked) -> str:
        """Raises RequestError, Malformed."""
        hash_ = _hash(asked.extensions)
        name = asked.document_id or asked.doc_id or hash_
        if name is not None and (trusted := self._trusted.get(name) or self._trusted.get(name.removeprefix(SHA256))):
            return trusted
        if self._only and not (asked.query and asked.query in self._texts):
            raise RequestError("UNTRUSTED_DOCUMENT", "This gateway answers the documents of its manifest, and this is none of them.")
        if asked.query:
            if hash_ is not None and hash_ != hashlib.sha256(asked.query.encode()).hexdigest():
                raise Malformed("extensions.persistedQuery.sha256Hash is not the SHA-256 of the query.")
            return asked.query
        if hash_ is not None and self._most:
            if (text := self._kept.get(hash_)) is None:
                raise RequestError("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
            self._kept.move_to_end(hash_)
            return text
        if hash_ is not None:
            raise RequestError("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported")
        if name is not None:
            raise RequestError("UNTRUSTED_DOCUMENT", "No document of this id is in the gateway's manifest.")
        raise Malformed("There is no query: send one as `query`.")

    def keep(self, asked: Asked) -> None:
        """Remember the text that a client has sent with its hash; call it for what could be executed, or anybody fills it with nothing."""
        hash_ = _hash(asked.extensions)
        if self._most and hash_ is not None and asked.query:
            self._kept[hash_] = asked.query
            self._kept.move_to_end(hash_)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _hash(extensions: Mapping[str, Any] | None) -> str | None:
    """Raises Malformed."""
    persisted = (extensions or {}).get("persistedQuery")
    if persisted is None:
        return None
    hash_ = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
    if not isinstance(hash_, str):
        raise Malformed("extensions.persistedQuery has no sha256Hash.")
    return hash_
