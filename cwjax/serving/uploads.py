"""A form with a file, read from a request: within limits of size and time, the file on the disk.

Nothing that the client says of the file, its name or its type, is used.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from cwjax.serving.errors import ApiError

FORM_BYTES, FORM_FIELDS = 1 << 20, 5000
"""Most bytes and most fields of a form beside its file."""
IN_MEMORY = 1 << 20
"""Bytes of a file that are not worth a place on the disk."""
PATIENCE, SLOWEST = 30.0, 16_000
"""Seconds that a body may take, and bytes that have to come in every second that it takes longer."""


class HungUpError(Exception):
    """The client has gone."""


@dataclass
class Form:
    """What was sent.

    Attributes:
        fields: names and texts, in their order.
        file: the part called "file", at its beginning; None if there is none.
    """

    fields: list[tuple[str, str]] = field(default_factory=list)
    file: BinaryIO | None = None


def boundary_of(headers: Headers, most_bytes: int) -> bytes:
    """What parts the fields of a form.

    Raises:
        ApiError: it is no form with a file, or one of more than `most_bytes`.
    """
    kind, options = parse_options_header(headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(400, "send a form (multipart/form-data) with the recording in its field 'file'", "bad_request")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most_bytes + FORM_BYTES:
        raise _too_large(most_bytes)
    return options[b"boundary"]


@asynccontextmanager
async def read_form(boundary: bytes, receive: Receive, most_bytes: int) -> AsyncIterator[Form]:
    """The form of a request's body; its file is removed at the end.

    Args:
        boundary: of `boundary_of`.
        receive: of the request.
        most_bytes: of the file.

    Raises:
        ApiError: it is too large, comes too slowly, or is no form.
        HungUpError: the client went away.
    """
    reader = _Reader(most_bytes)
    try:
        try:
            parser = MultipartParser(boundary, reader.callbacks)
            async for chunk in _body(receive, most_bytes):
                parser.write(chunk)
            parser.finalize()
        except FormParserError:
            raise ApiError(400, "the body is no complete multipart/form-data", "bad_request") from None
        if not reader.ended:
            raise ApiError(400, "the body ends before the form does", "bad_request")
        if reader.form.file is not None:
            reader.form.file.seek(0)
        yield reader.form
    finally:
        if reader.form.file is not None:
            reader.form.file.close()


async def _body(receive: Receive, most_bytes: int) -> AsyncIterator[bytes]:
    began, size, more = time.monotonic(), 0, True
    while more:
        left = PATIENCE + size / SLOWEST - (time.monotonic() - began)
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.001))
        except TimeoutError:
            raise ApiError(408, "the body came too slowly", "timeout") from None
        if message["type"] == "http.disconnect":
            raise HungUpError
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most_bytes + FORM_BYTES:
            raise _too_large(most_bytes)
        yield chunk


class _Reader:
    """Takes the parts of a form as the parser meets them."""

    def __init__(self, most_bytes: int):
        self.form, self.ended = Form(), False
        self._most, self._file_bytes, self._form_bytes = most_bytes, 0, 0
        self._header, self._value, self._disposition = b"", b"", b""
        self._name, self._text = "", bytearray()
        self._in_file = False
        self.callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._add,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition, self._text = b"", bytearray()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = self._name == "file"
        self._form_bytes += len(self._disposition)
        if not self._in_file:
            return
        if self.form.file is not None:
            raise ApiError(400, "there are several files: send one at a time", "unsupported_value", "file")
        self.form.file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="cwjax-")  # noqa: SIM115

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file_bytes += end - start
            if self._file_bytes > self._most:
                raise _too_large(self._most)
            self.form.file.write(data[start:end])
            return
        self._form_bytes += end - start
        if self._form_bytes > FORM_BYTES or len(self.form.fields) >= FORM_FIELDS:
            most = f"{FORM_FIELDS:,} fields and {FORM_BYTES >> 20} MiB"
            raise ApiError(413, f"the form is too large: beside the file it may have {most}", "form_too_large")
        self._text += data[start:end]

    def _close(self) -> None:
        if self._in_file:
            return
        try:
            self.form.fields.append((self._name, self._text.decode("utf-8")))
        except UnicodeDecodeError:
            raise ApiError(400, "a field is no UTF-8", "unsupported_value", printable_name(self._name)) from None

    def _end(self) -> None:
        self.ended = True


def printable_name(name: str) -> str:
    """A field's name as it may stand in a header."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "_-.[]") else "?" for one in name[:64])


def _too_large(most_bytes: int) -> ApiError:
    return ApiError(413, f"the file is too large: at most {most_bytes >> 20} MiB", "file_too_large", "file")
