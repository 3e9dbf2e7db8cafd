"""A stand-in for DuckDuckGo's results page, for tests, the examples and `make demo`: it is not DuckDuckGo.

It knows a few pages and answers in the form of the page without JavaScript, so that the web search server can be tried
where there is no internet. It never asks anybody.
"""
