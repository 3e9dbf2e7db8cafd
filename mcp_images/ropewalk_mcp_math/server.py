"""The tools of the math server: names, descriptions and schemas. The arithmetic itself is in arithmetic.py."""

from typing import Annotated, Any

from mcp_types import CallToolResult, ToolAnnotations
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_math import arithmetic
from ropewalk_mcp_math.arithmetic import Number


def _argument(description: str) -> Any:
    # A plain "number" in the schema: models fill it more reliably than a union of integer and number.
    return PlainValidator(arithmetic.number), WithJsonSchema({"type": "number", "description": description})


class Calculation(BaseModel):
    """A calculation and its result."""

    expression: str = Field(description="What was calculated, such as 21.5 + 20.5")
    result: Annotated[Number, WithJsonSchema({"type": "number"})] = Field(description="The number that it gives")


Answer = Annotated[CallToolResult, Calculation]
A = Annotated[Number, *_argument("The first number")]
B = Annotated[Number, *_argument("The second number")]
Dividend = Annotated[Number, *_argument("The number to divide")]
Divisor = Annotated[Number, *_argument("The number to divide by; not 0")]
Base = Annotated[Number, *_argument("The number to raise")]
Exponent = Annotated[Number, *_argument("The power to raise it to")]


def _answer(expression: str, value: Number) -> CallToolResult:
    return result(f"{expression} = {value}", Calculation(expression=expression, result=value))


# The tools are coroutines although they wait for nothing: plain functions would each be sent to a thread.
async def add(a: A, b: B) -> Answer:
    """Add two numbers: a + b. The sum."""
    return _answer(f"{a} + {b}", arithmetic.add(a, b))


async def subtract(a: A, b: B) -> Answer:
    """Subtract one number from another: a - b, a minus b. The difference."""
    return _answer(f"{a} - {b}", arithmetic.subtract(a, b))


async def multiply(a: A, b: B) -> Answer:
    """Multiply two numbers: a * b, a times b. The product."""
    return _answer(f"{a} * {b}", arithmetic.multiply(a, b))


async def divide(a: Dividend, b: Divisor) -> Answer:
    """Divide one number by another: a / b, a divided by b. The quotient. b must not be 0."""
    return _answer(f"{a} / {b}", arithmetic.divide(a, b))


async def power(base: Base, exponent: Exponent) -> Answer:
    """Raise a number to a power: base ^ exponent. Results must stay below 1.8e308."""
    return _answer(f"{base} ^ {exponent}", arithmetic.power(base, exponent))


def math_server(registry: CollectorRegistry) -> ToolServer:
    """Return the server with its five tools."""
    server = ToolServer("ropewalk-math", "Exact arithmetic on two numbers at a time.", registry)
    for tool in (add, subtract, multiply, divide, power):
        server.add_tool(tool, annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True))
    return server
