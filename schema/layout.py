"""Where a view is in Redis: keys, shards, field codes, value encoding. The only place that formats a key.

    {<view>}:live                       name of the live generation; gateways watch it
    {<view>}:generations                set: every name that a generation has ever had
    {<view>}:generation:<g>             its record (schema/generation.py)
    {<view>}:progress:<g>               hash: partition → Unix ms up to which the view has it
    <view>:<g>:{tag}                    header of a shard, hash: state, build, a watermark per partition; seen, where its rows came from
                                        SQL under change data capture (schema/seen.py)
    <view>:<g>.<build>:{tag}:<id>       one row of the view, hash: field code → JSON fragment, strings without their quotes
    <view>:<g>.<build>:{tag}@<name>:<v> claimants of value v of lookup field <name>, hash: id → when claimed
    <view>:<g>.changed:{tag}            of a shard that is published, set: keys whose newest state the view topic lacks
    <view>:<g>.taking:{tag}             those that are on their way there
    {<view>}:publisher                  who publishes, for some seconds
    <view>:<mode>:{<by>:<value>}        of a mode with a cache: what it keeps of a row, or of a lookup value (loaders/cache.py)
    <view>:<mode>:{<by>:<value>}:lease  who refills it
    {<view>}:experiment                 what gateways have on trial (app/experiment.py); gateways watch it
    {<view>}:experiment:log             stream: who switched it, when, to what
    {<view>}:experiment:<run>:counts    hash: what each gateway has counted, <gateway>:<what> → a number
    {<view>}:experiment:<run>:subjects  sorted set: those whose hashes are the smallest
    {<view>}:experiment:<run>:differ    list: where a second mode's answers differed

A shard's header, rows, claimants and sets share the hash tag, so one slot, so one script may touch them and they are lost together.
So do the pointer to the live generation and the records.
"""

import binascii
import itertools
import string
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

import msgspec

from schema.definition import Definition, Field
from schema.fields import Column

SHARDS = 256
SLOTS = 16384
STATE, BUILD, SEEN = b"state", b"build", b"seen"
# of a header that is published (projectors/owed.py): the last version counted, and the one that who counted it knew to lie in the topic;
# the topic, and how much is still owed as a whole
PUBLISHED, KNOWN, TOPIC, OWED = b"published", b"known", b"topic", b"owed"
# of such a header, and of one that is filled from the topic (projectors/copies.py): versions of one series add up; and how far it is filled
SERIES, FILLED = b"series", b"filled"
NO_WATERMARKS = frozenset({STATE, BUILD, SEEN, PUBLISHED, KNOWN, TOPIC, OWED, SERIES, FILLED})
LIVE, BUILDING = b"live", b"building"
NULL = b"null"
LONGEST_KEY = 128
# of decimal digits: fewer make no number that is beyond 64 bits
LONG_DIGITS = 19
_MARK = b"~"
_QUOTE = '"'
_DIGITS = string.digits + string.ascii_lowercase
_ENCODER = msgspec.json.Encoder()


class InvalidKey(ValueError):
    """A text that is no canonical key of the view; the message says why."""


def canonical(key_type: type, text: str) -> str:
    """Check that `text` is the one way to write a key. Raises InvalidKey."""
    if not text or len(text) > LONGEST_KEY:
        raise InvalidKey(f"an id has 1 to {LONGEST_KEY} characters, this one {len(text)}")
    if key_type is str:
        if text != text.strip() or not text.isprintable():
            raise InvalidKey(f"{text!r} has blanks at an end or characters that cannot be printed")
        return text
    # most of them, by what costs least
    if text.isdecimal() and text.isascii() and text[0] != "0" and len(text) < LONG_DIGITS:
        return text
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidKey(f"{text!r} is not a whole number in decimal digits")
    if text != str(int(text)):
        raise InvalidKey(f"{text!r} is not how this number is written; write {int(text)}")
    if not -(2**63) <= int(text) < 2**63:
        raise InvalidKey(f"{text!r} does not fit into 64 bits")
    return text


def encode(value: object) -> bytes:
    """A value as the JSON fragment that goes to the client: times in RFC 3339 UTC, strings quoted."""
    if isinstance(value, datetime):
        value = value.astimezone(UTC)
    return _ENCODER.encode(value)


def codes(definition: Definition) -> dict[str, str]:
    """Redis field of each view field, for a new generation: as short as can be."""
    one = list(_DIGITS)
    two = (a + b for a in _DIGITS for b in _DIGITS)
    return dict(zip((f.name for f in definition.fields), itertools.chain(one, two), strict=False))


def prefixes(definition: Definition) -> dict[str, str]:
    """What the values of each column of strings are cut of, for a new generation: the quotes, and the text that most begin with.

    Each is how the JSON fragment begins, so it begins with a quote. In records of 0.1.0 it is the text alone, for columns that have one.
    """
    return {f.name: encode(_text(f))[:-1].decode() for f in definition.columns if f.type in {str, datetime}}


def _text(column: Field) -> str:
    return column.kind.prefix if isinstance(column.kind, Column) and column.kind.prefix else ""


def cut(fragment: bytes, prefix: str) -> bytes:
    """A fragment as it is stored. prefix: of its column in the generation's record, "" if it has none: stored as it is.

    `"code_1"` is stored as `code_1`; null as `~`; a string that begins otherwise than the prefix, or would begin with `~`, whole
    behind a `~`.
    """
    if not prefix.startswith(_QUOTE):
        return _cut_as_first(fragment, prefix)
    if fragment == NULL:
        return _MARK
    head = _bytes(prefix)
    body = fragment[len(head) : -1]
    return body if fragment.startswith(head) and not body.startswith(_MARK) else _MARK + fragment


def uncut(stored: bytes, prefix: str) -> bytes:
    """The fragment that `cut` was given."""
    if not prefix.startswith(_QUOTE):
        return _uncut_as_first(stored, prefix)
    if stored.startswith(_MARK):
        return stored[1:] or NULL
    return b'%b%b"' % (_bytes(prefix), stored)


def cuts(prefixes: Mapping[str, str], names: Sequence[str]) -> Sequence[tuple[int, str, bytes]]:
    """For `uncut_in`: of fragments in this order. prefixes: of a generation's record."""
    return [(place, prefixes[name], _bytes(prefixes[name])) for place, name in enumerate(names) if name in prefixes]


def uncut_in(row: list[bytes], cuts: Sequence[tuple[int, str, bytes]]) -> None:
    """Put in their places the fragments that `cut` was given; most are whole with what is put around them."""
    for place, prefix, head in cuts:
        stored = row[place]
        row[place] = b'%b%b"' % (head, stored) if prefix[:1] == _QUOTE and stored[:1] != _MARK else uncut(stored, prefix)


def _cut_as_first(fragment: bytes, text: str) -> bytes:
    """As 0.1.0 stored it: the quotes stay, and `~` stands for the text."""
    head = encode(text)[:-1]
    return _MARK + fragment[len(head) :] if text and fragment.startswith(head) else fragment


def _uncut_as_first(stored: bytes, text: str) -> bytes:
    return encode(text)[:-1] + stored[1:] if stored.startswith(_MARK) else stored


@cache
def _bytes(prefix: str) -> bytes:
    return prefix.encode()


@cache
def tags(shards: int) -> tuple[str, ...]:
    """The hash tag of each shard v: the shortest text that Redis Cluster puts on slot v·16384/V."""
    wanted = {v * SLOTS // shards: v for v in range(shards)}
    found: dict[int, str] = {}
    for length in itertools.count(1):
        for letters in itertools.product(_DIGITS, repeat=length):
            tag = "".join(letters)
            v = wanted.get(binascii.crc_hqx(tag.encode(), 0) % SLOTS)
            if v is not None and v not in found:
                found[v] = tag
                if len(found) == shards:
                    return tuple(found[v] for v in range(shards))
    raise AssertionError("unreachable: itertools.count does not end")


def live_key(view: str) -> str:
    return f"{{{_word(view)}}}:live"


def publisher_key(view: str) -> str:
    return f"{{{_word(view)}}}:publisher"


def generations_key(view: str) -> str:
    return f"{{{_word(view)}}}:generations"


def generation_key(view: str, generation: str) -> str:
    return f"{{{_word(view)}}}:generation:{generation}"


def cache_key(view: str, mode: str, by: str, value: str) -> str:
    return f"{_word(view)}:{mode}:{{{by}:{value}}}"


def lease_key(cache_key: str) -> str:
    return f"{cache_key}:lease"


def experiment_key(view: str, *parts: str) -> str:
    """Without parts the switch; "log"; or a run, and of it "counts", "subjects" or "differ"."""
    return ":".join((f"{{{_word(view)}}}:experiment", *parts))


class Layout:
    """The keys of one generation of one view."""

    def __init__(self, view: str, generation: str, shards: int) -> None:
        self.view, self.generation, self.shards = view, generation, shards
        self.headers: tuple[str, ...] = tuple(f"{_word(view)}:{generation}:{{{tag}}}" for tag in tags(shards))
        self.progress: str = f"{{{_word(view)}}}:progress:{generation}"
        # as if they were of a build, so that who removes the keys of all builds removes them too
        self.changed: tuple[str, ...] = tuple(f"{_word(view)}:{generation}.changed:{{{tag}}}" for tag in tags(shards))
        self.taking: tuple[str, ...] = tuple(f"{_word(view)}:{generation}.taking:{{{tag}}}" for tag in tags(shards))

    def shard(self, key: str) -> int:
        return zlib.crc32(key.encode()) % self.shards

    def rows_prefix(self, shard: int, build: str) -> str:
        """What the key of every row of this shard starts with; the row's id follows."""
        return f"{_word(self.view)}:{self.generation}.{build}:{{{tags(self.shards)[shard]}}}:"

    def claims_prefix(self, shard: int, build: str, field: Field) -> str:
        """What the key of every value's claimants starts with, on this shard; the value follows."""
        return f"{_word(self.view)}:{self.generation}.{build}:{{{tags(self.shards)[shard]}}}@{field.name}:"

    def rows_pattern(self) -> str:
        """A SCAN pattern that matches every row of this generation (and little else: see row_id)."""
        return f"{_word(self.view)}:{self.generation}.*:{{*}}:*"

    def rows_start(self) -> str:
        """What the key of every row and of every lookup's claimants starts with, of whatever build; no header's does."""
        return f"{_word(self.view)}:{self.generation}."

    def all_pattern(self) -> str:
        """A SCAN pattern that matches every row and every lookup's claimants of this generation, of any build; no header."""
        return f"{_word(self.view)}:{self.generation}.*:{{*}}*"

    @staticmethod
    def row_id(key: str) -> str | None:
        """The id in a row's key, None for a key of another sort."""
        head, _, rest = key.partition("}")
        return rest[1:] if rest.startswith(":") and not head.startswith("{") else None


def _word(view: str) -> str:
    return view.lower()


def claimed(stored: Mapping[bytes, bytes]) -> list[str]:
    """Claimants of a lookup value, the latest claim first. stored: id → "ts_ms:offset"."""

    def when(item: tuple[bytes, bytes]) -> tuple[int, int]:
        ts_ms, offset = item[1].split(b":")
        return int(ts_ms), int(offset)

    return [key.decode() for key, _ in sorted(stored.items(), key=when, reverse=True)]
