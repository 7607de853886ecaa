# SPDX-License-Identifier: Apache-2.0
"""The tables and strings of a ``.gru`` file that is being read, and messages that name a field of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine import records
from gru_engine.errors import FormatError
from gru_engine.layers import Array


class Table:
    """The records of a section and where they stand."""

    def __init__(self, name: str, data: bytes, place: slice, dtype: np.dtype[Any], count: int) -> None:
        size, content = place.stop - place.start, count * dtype.itemsize
        if size != records.round_up(content):
            raise FormatError(f"section {name} has {size} bytes, expected {records.round_up(content)}")
        check_zero(data, place.start + content, place.stop, f"section {name}")
        self.name, self.start = name, place.start
        self.records: Array = np.frombuffer(data, dtype, count, place.start)

    def check(self, ok: Any, i: int, field: str, expected: object) -> None:
        """Raises an error about a field of record i unless ``ok``."""
        if not ok:
            raise FormatError(f"{self.where(i, field)}, expected {expected}")

    def where(self, i: int, field: str) -> str:
        """A field of record i, its offset and value, for a message."""
        dtype, value = self.records.dtype, self.records[i][field]
        shown = value.tobytes().hex() if dtype[field].kind == "V" and not dtype[field].shape else value.tolist()
        return (
            f"{self.name}[{i}].{field} at byte {self.start + i * dtype.itemsize + offset_of(dtype, field)} is {shown}"
        )

    def check_reserved(self, i: int) -> None:
        """The reserved bytes of record i are zero."""
        for field in self.records.dtype.names or ():
            if field.startswith("reserved"):
                self.check(is_zero(self.records[i][field]), i, field, "zeros")


def offset_of(dtype: np.dtype[Any], field: str) -> int:
    """Where a field of a record begins."""
    return int(dtype.fields[field][1])  # type: ignore[index]


def is_zero(value: Any) -> bool:
    """Whether all bytes are zero (a float -0 is not)."""
    return not any(value.tobytes())


def check_zero(data: bytes, start: int, stop: int, what: str) -> None:
    """Raises an error unless the bytes from start to stop are zero."""
    if data.count(0, start, stop) != stop - start:
        at = next(i for i in range(start, stop) if data[i])
        raise FormatError(f"{what}: byte {at} of the padding is {data[at]}, expected 0")


class Strings:
    """Section STRINGS."""

    def __init__(self, data: bytes, place: slice) -> None:
        self.bytes = data[place]
        content = len(self.bytes.rstrip(b"\0")) + 1
        if self.bytes[:1] != b"\0" or self.bytes[-1:] != b"\0" or len(self.bytes) != records.round_up(content):
            raise FormatError(
                f"section STRINGS at byte {place.start} has {len(self.bytes)} bytes; expected a zero byte at its "
                f"beginning and its end, and the size {records.round_up(content)}"
            )
        try:
            self.bytes.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"section STRINGS at byte {place.start} is not UTF-8: {error}") from None

    def get(self, table: Table, i: int) -> str:
        """The name of record i."""
        offset = int(table.records[i]["name"])
        table.check(offset < len(self.bytes), i, "name", f"an offset below {len(self.bytes)}")
        try:
            return self.bytes[offset : self.bytes.index(0, offset)].decode()
        except UnicodeDecodeError:
            raise FormatError(f"{table.where(i, 'name')}, expected the offset of a UTF-8 string") from None
