"""A server with everything that the official conformance suite asks a server for, written with the mcp package alone.

What each tool, resource and prompt does is prescribed by the suite's scenarios. It runs over streamable HTTP or over
stdio, so that the same server can be measured natively and behind the stdio bridge.
"""
