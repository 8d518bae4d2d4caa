"""A load balancer as an httpx transport. It follows nginx's rules for
`proxy_next_upstream error http_503 non_idempotent`."""

import httpx


class Balancer(httpx.AsyncBaseTransport):
    """Round robin over servers. Skips a server that cannot be reached, drops the connection or answers 503."""

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
        self.passed_over = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self._urls.append(self._urls.pop(0))
        for url in list(self._urls):
            forwarded = httpx.Request(
                request.method, url + request.url.raw_path.decode(), headers=_headers(request), content=body
            )
            try:
                answer = await self._inner.handle_async_request(forwarded)
                await answer.aread()
            except httpx.TransportError:
                self.passed_over += 1
                continue
            if answer.status_code != 503:
                return answer
            self.passed_over += 1
        return httpx.Response(502, text="no server is left")

    async def aclose(self) -> None:
        await self._inner.aclose()


def _headers(request: httpx.Request) -> dict[str, str]:
    return {"Content-Type": request.headers.get("content-type", "application/json")}
