"""How one selection of fields is read of a row: the bytes of the command, and from its reply the fragments. Sends nothing."""

from collections.abc import Mapping, Sequence

from schema import layout

ID = "id"


class Way:
    """fields: as in Read. marker: the code of a field that every row with a profile has. codes: of the fields but for the id.

    prefixes: of the generation's record.
    """

    def __init__(self, fields: tuple[str, ...], marker: str, codes: Sequence[str], prefixes: Mapping[str, str]) -> None:
        self._fields, self._codes = fields, (marker, *codes)
        self._id = fields.index(ID) if ID in fields else None
        self._cuts = layout.cuts(prefixes, fields)
        self._head = b"*%d\r\n$5\r\nHMGET\r\n" % (len(self._codes) + 2)
        self._tail = b"".join([b"$%d\r\n%b\r\n" % (len(code), code) for code in (one.encode() for one in self._codes)])

    def command(self, key: str) -> tuple[str, ...]:
        """Its reply is for `row`, after the marker."""
        return ("HMGET", key, *self._codes)

    def packed(self, prefix: bytes, row_id: str) -> bytes:
        """The same as Redis takes it. prefix: of the row's key."""
        key = prefix + row_id.encode()
        return b"%b$%d\r\n%b\r\n%b" % (self._head, len(key), key, self._tail)

    def row(self, row_id: str, reply: list[bytes]) -> list[bytes] | None:
        """The fragments of `fields`; None if the row lacks one. reply: after the marker, which it is here no more; it becomes the row."""
        if self._id is not None:
            reply.insert(self._id, layout.encode(row_id))
        if None in reply:
            return None
        layout.uncut_in(reply, self._cuts)
        return reply

    def missing(self, reply: Sequence[bytes | None]) -> str:
        """Which field a row lacks. reply: that `row` was given."""
        return next(name for name, value in zip(self._fields, reply, strict=True) if value is None)
