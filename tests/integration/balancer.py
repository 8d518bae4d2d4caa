"""A load balancer for tests, as a transport of the client's: nginx's rules with
`proxy_next_upstream error http_503 non_idempotent`."""

import httpx


class Balancer(httpx.AsyncBaseTransport):
    """Round robin over servers; one that cannot be reached, breaks off or says 503 is passed over."""

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
        self.passed_over = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self._urls.append(self._urls.pop(0))
        for url in list(self._urls):
            there = httpx.Request(
                request.method, url + request.url.raw_path.decode(), headers=_headers(request), content=body
            )
            try:
                answer = await self._inner.handle_async_request(there)
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
