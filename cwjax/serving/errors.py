"""What goes wrong with a request, in the form of OpenAI's errors."""

from typing import Any


class ApiError(Exception):
    """An answer that is no success.

    Args:
        status: of HTTP.
        message: for people.
        code: for programs, such as `unsupported_value`.
        param: the field that is wrong.
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if status == 500:
            self.headers["x-should-retry"] = "false"  # else OpenAI's client uploads three times
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    @property
    def body(self) -> dict[str, Any]:
        """As JSON values."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def internal_error() -> ApiError:
    """What clients are told of a fault of ours, whose traceback is in the log."""
    return ApiError(500, "the server failed; its log says why", "internal_error")
