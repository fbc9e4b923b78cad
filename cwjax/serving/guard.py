"""Who may ask: the key, the names that the server answers to, and pages of other sites."""

import hmac
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cwjax.serving.errors import ApiError
from cwjax.serving.replies import refuse, refuse_handshake, reply

METHODS, HEADERS = "GET, POST, OPTIONS", "authorization, content-type"
"""What pages of other sites that are allowed may use."""
KEY = "openai-insecure-api-key."
"""Begins the subprotocol by which browsers, whose websockets have no headers, bring their key."""


class Guard:
    """Refuses before anything is read.

    Pages of other sites are kept out twice: by the `Origin` that browsers send, and by the name in `Host`, since a
    site can let its own name lead here (DNS rebinding). That name has a dot and is no address, so only such names are
    refused, unless they are this machine's or there is a key, which no such page has.

    Args:
        app: what is guarded.
        key: that `Authorization: Bearer` must bring to `/v1` and `/metrics`; None: nobody needs one.
        origins: such as "https://example.org", whose pages may ask.
        names: that the server answers to besides its own.
    """

    def __init__(self, app: ASGIApp, key: str | None, origins: Sequence[str] = (), names: Sequence[str] = ()):
        self._app, self._key = app, None if key is None else key.encode()
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        own = (socket.gethostname(), socket.getfqdn(), *names)
        self._names = {name.lower() for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        try:
            self._check(scope, headers, origin)
        except ApiError as error:
            if scope["type"] == "websocket":
                await refuse_handshake(send, error)
                return
            await refuse(receive, self._told(send, origin), error)
            return
        if scope.get("method") == "OPTIONS" and origin in self._origins:
            allowed = {"access-control-allow-methods": METHODS, "access-control-allow-headers": HEADERS}
            await reply(self._told(send, origin), 200, b"", "text/plain", {**allowed, "access-control-max-age": "600"})
            return
        await self._app(scope, receive, self._told(send, origin))

    def _check(self, scope: Scope, headers: Headers, origin: str) -> None:
        host = headers.get("host", "")
        if self._key is None and not self._is_own(host):
            raise ApiError(403, "the server does not answer to this Host; name it by --allow-origin", "unknown_host")
        if origin and origin not in self._origins and urlsplit(origin).netloc != host.lower():
            raise ApiError(403, "pages of other sites may not ask; allow this one by --allow-origin", "unknown_origin")
        if self._key is None or not scope["path"].startswith(("/v1/", "/metrics")):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        shown = [given.strip()] if scheme.lower() == "bearer" else []
        shown += [one.removeprefix(KEY) for one in scope.get("subprotocols", ()) if one.startswith(KEY)]
        if not any(hmac.compare_digest(one.encode(), self._key) for one in shown):
            raise ApiError(401, "the API key is missing or wrong: send it as Authorization: Bearer", "invalid_api_key")

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if "." not in name and ":" not in name:
            return bool(name)
        return name in self._names or _is_address(name)

    def _told(self, send: Send, origin: str) -> Send:
        """Adds the headers that all answers have."""
        added = [(b"x-content-type-options", b"nosniff")]
        if origin in self._origins:
            added += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
            added += [(b"access-control-expose-headers", b"x-cwjax-ignored, retry-after")]

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return told


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
