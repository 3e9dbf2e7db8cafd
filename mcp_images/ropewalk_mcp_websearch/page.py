"""Reads DuckDuckGo's results page, the one without JavaScript. Pure: no client.

DuckDuckGo documents the parameters of its addresses (its help page "URL Parameters"), not the form of the page. What is
relied on here is what that page has had for years: each result is an element of class `result` with its title in
`result__a` and its text in `result__snippet`; advertisements are also `result--ad`; a page without results says so in
`no-results`; a visitor who is taken for a robot gets the form `challenge-form` instead of results.
"""

import re
import unicodedata
from urllib.parse import parse_qs, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag
from pydantic import BaseModel, Field

from ropewalk_mcp_common.errors import CodedError

_OWN = "https://duckduckgo.com/"
_MAX_TITLE = 200
_MAX_ADDRESS = 2_000
_MAX_SNIPPET = 500
# The page has about thirty; each is searched by itself, and in nonsense each may hold all that follow.
_MAX_BLOCKS = 100
TAKEN_FOR_A_ROBOT = (
    "DuckDuckGo takes this server for a robot and asks for a person; nothing was found out about the query. Try again "
    "in some minutes, and search less often"
)
_SPACE = re.compile(r"\s+")


class SearchResult(BaseModel):
    """One page that was found."""

    title: str = Field(description="The page's title, at most 200 characters")
    url: str = Field(description="The page's address, http or https")
    snippet: str = Field(description="Some words of the page as plain text, at most 500 characters")


def results(page: str) -> list[SearchResult]:
    """Return what the page shows, best first, each address once; an empty list where it says that there is nothing.

    Raises CodedError: RATE_LIMITED for the page that asks whether a person is there, UPSTREAM_INVALID for any other.
    """
    if page.rfind("<") > page.rfind(">") or page.rfind("<!--") > page.rfind("-->"):
        # The parser looks for the end of each open tag to the end of the page: minutes, where there is none.
        raise _another_page()
    soup = BeautifulSoup(page, "html.parser")
    if soup.select_one("#challenge-form, .anomaly-modal__modal, .anomaly-modal__title"):
        raise CodedError("RATE_LIMITED", TAKEN_FOR_A_ROBOT)
    found: dict[str, SearchResult] = {}
    for block in soup.select(".result:not(.result--ad):not(.result--no-result)", limit=_MAX_BLOCKS):
        result = _result(block)
        if result and result.url not in found:
            found[result.url] = result
    if not found and not soup.select_one(".no-results, .result--no-result, #links"):
        raise _another_page()
    return list(found.values())


def _another_page() -> CodedError:
    return CodedError(
        "UPSTREAM_INVALID",
        "the answer is not DuckDuckGo's results page; see that the server's --base-url names such a page",
    )


def _result(block: Tag) -> SearchResult | None:
    link = block.select_one("a.result__a")
    url = address(str(link.get("href", ""))) if link else ""
    if not link or not url:
        return None
    snippet = block.select_one(".result__snippet")
    return SearchResult(
        title=plain(link.get_text(), _MAX_TITLE) or url,
        url=url,
        snippet=plain(snippet.get_text(), _MAX_SNIPPET) if snippet else "",
    )


def address(href: str) -> str:
    """Return where a link of the page leads to in the end, or an empty string if it is none that may be shown.

    DuckDuckGo leads through https://duckduckgo.com/l/?uddg=ADDRESS, advertisements through its /y.js.
    """
    if not href.strip():
        return ""
    try:
        parts = urlsplit(urljoin(_OWN, href.strip()))
        if _is_own(parts.hostname) and parts.path.rstrip("/") == "/l":
            parts = urlsplit(parse_qs(parts.query).get("uddg", [""])[0])
        # A name before the host (https://bank.example@other.example) is there to mislead.
        hidden = parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None
    except ValueError:
        return ""
    if hidden or (_is_own(parts.hostname) and parts.path == "/y.js"):
        return ""
    shown = parts.geturl()
    return shown if len(shown) <= _MAX_ADDRESS and shown.isprintable() and " " not in shown else ""


def _is_own(host: str | None) -> bool:
    return host == "duckduckgo.com" or (host or "").endswith(".duckduckgo.com")


def plain(text: str, most: int) -> str:
    """Return text on one line, without characters that nobody sees (they can hide words), cut to `most`."""
    visible = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn"))
    line = _SPACE.sub(" ", visible).strip()
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
