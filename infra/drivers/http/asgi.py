"""Send a complete response from an ASGI application."""

from starlette.types import Send


async def answer(send: Send, status: int, body: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
    """The response must not be cached."""
    length = (b"content-length", b"%d" % len(body))
    start = [(b"content-type", content_type), length, (b"cache-control", b"no-store"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
