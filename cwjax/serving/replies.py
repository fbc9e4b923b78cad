"""Answers as ASGI messages."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Send

from cwjax.serving.errors import ApiError

LINGER_SECONDS, LINGER_BYTES = 2.0, 8 << 20
"""How long, and how much of it, a body that nobody wants is still taken: a client that is reset while it sends may miss
the answer."""


async def reply(
    send: Send, status: int, body: str | bytes, kind: str, headers: Mapping[str, str] | None = None, last: bool = True
) -> None:
    """Sends a whole answer; what follows it, if it is not the last message, is empty."""
    content = body.encode() if isinstance(body, str) else body
    given = {"content-type": kind, "content-length": str(len(content)), **(headers or {})}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content, "more_body": not last})


async def reply_json(send: Send, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
    """Sends JSON."""
    await reply(send, status, json.dumps(content, ensure_ascii=False), "application/json", headers)


async def refuse_handshake(send: Send, error: ApiError) -> None:
    """Sends an error to a client that wants a websocket."""

    async def told(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await reply_json(told, error.body, error.status, error.headers)


async def refuse(receive: Receive, send: Send, error: ApiError) -> None:
    """Sends an error before the body has been read, then lets a little of it go by."""
    await reply(send, error.status, json.dumps(error.body), "application/json", error.headers, last=False)
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            left = LINGER_BYTES
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
                left -= len(message.get("body", b""))
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})
