"""How far a writer is to go, and how far it is: three numbers in a file, which outlives a writer that is killed."""

import mmap
import struct
from pathlib import Path

_NUMBER = struct.Struct("=q")
_UNTIL, _BEGUN, _DONE = range(3)


class Board:
    """One writer's. Whoever opens the same file sees the same numbers at once."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(3 * _NUMBER.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @property
    def until(self) -> int:
        """Acts below this number are to be begun; set by whoever drives the writer."""
        return self._read(_UNTIL)

    @until.setter
    def until(self, number: int) -> None:
        self._write(_UNTIL, number)

    @property
    def begun(self) -> int:
        """The number of acts that were begun, by whichever process: none is begun twice."""
        return self._read(_BEGUN)

    @begun.setter
    def begun(self, number: int) -> None:
        self._write(_BEGUN, number)

    @property
    def done(self) -> int:
        """The last `until` that was reached with every act ended, or lost with its process."""
        return self._read(_DONE)

    @done.setter
    def done(self, number: int) -> None:
        self._write(_DONE, number)

    def close(self) -> None:
        self._map.close()

    def _read(self, place: int) -> int:
        (number,) = _NUMBER.unpack_from(self._map, place * _NUMBER.size)
        return int(number)

    def _write(self, place: int, number: int) -> None:
        _NUMBER.pack_into(self._map, place * _NUMBER.size, number)
