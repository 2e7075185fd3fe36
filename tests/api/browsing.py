"""A browser without JavaScript: cookies, redirects, and forms with the token that the page gave."""

import re
from html import unescape

import httpx2

from tests.api.serving import ANSWERS_WITHIN_S, Served


class Browser:
    def __init__(self, api: Served) -> None:
        self.client = httpx2.Client(base_url=api.url, timeout=ANSWERS_WITHIN_S)

    def close(self) -> None:
        self.client.close()

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return self.client.get(path, headers=headers)

    def token(self, page: str = "/") -> str:
        """What the forms of this page carry."""
        shown = self.client.get(page, follow_redirects=True).text
        found = re.search(r'name="csrf" value="([^"]+)"', shown)
        assert found, "no form"
        return unescape(found[1])

    def post(self, path: str, **form: str) -> httpx2.Response:
        """A form with its token and a reason, unless told otherwise."""
        return self.post_with({}, path, **form)

    def post_with(self, headers: dict[str, str], path: str, **form: str) -> httpx2.Response:
        form = {"csrf": self.token(), "reason": "a test"} | form
        return self.client.post(path, data=form, headers=headers)

    def sign_in(self, **form: str) -> httpx2.Response:
        """`name` and `password`, or `key`."""
        return self.client.post("/sign-in", data={"csrf": self.token("/sign-in"), **form})
