"""GET /html/ in the form of DuckDuckGo's page without JavaScript, and GET /health."""

import re
from html import escape
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from search_stand_in.pages import Page, found

WHAT_IT_IS = "a stand-in for DuckDuckGo's results page: not DuckDuckGo"
# The values that DuckDuckGo's help page "URL Parameters" and the form of its page name. DuckDuckGo itself takes no
# notice of others; here they are mistakes, so that a test sees them.
_PARAMETERS = {"q": r".{1,499}", "kl": r"[a-z]{2}-[a-z]{2,3}", "kp": r"1|-1|-2", "df": r"[dwmy]"}
_ADVERTISEMENT = "https://duckduckgo.com/y.js?ad_domain=advertisement.example&u3=nowhere"


def create_app() -> Starlette:
    """Return the ASGI application."""
    return Starlette(routes=[Route("/html/", _search), Route("/health", JSONResponse({"status": "ok"}))])


async def _search(request: Request) -> Response:
    for name, value in request.query_params.items():
        if name not in _PARAMETERS or not re.fullmatch(_PARAMETERS[name], value):
            return PlainTextResponse(f"the stand-in does not know {name}={value}", 400)
    query = request.query_params.get("q", "")
    return HTMLResponse(_page(query, found(query)))


def _page(query: str, pages: list[Page]) -> str:
    blocks = "".join(_block(f"//duckduckgo.com/l/?uddg={quote(page.url, safe='')}", page) for page in pages)
    if blocks:
        advertisement = Page(_ADVERTISEMENT, "An advertisement", "Nobody should see this.")
        blocks = _block(_ADVERTISEMENT, advertisement, "result--ad") + blocks
    else:
        blocks = (
            '<div class="result results_links results_links_deep result--no-result"><div class="no-results">'
            f"No results found for <b>{escape(query)}</b>.</div></div>"
        )
    return (
        f"<!DOCTYPE html><html><head><title>{escape(query)} at a stand-in for DuckDuckGo</title></head>"
        f'<body class="body--html"><div class="serp__results"><div id="links" class="results">{blocks}</div></div>'
        "</body></html>"
    )


def _block(link: str, page: Page, kind: str = "web-result") -> str:
    href = escape(link)
    return (
        f'<div class="result results_links results_links_deep {kind} "><div class="links_main links_deep result__body">'
        f'<h2 class="result__title"><a rel="nofollow" class="result__a" href="{href}">{escape(page.title)}</a></h2>'
        f'<a class="result__snippet" href="{href}">{escape(page.words)}</a><div class="clear"></div></div></div>'
    )
