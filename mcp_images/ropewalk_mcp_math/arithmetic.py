"""Arithmetic that people expect of a calculator: 0.1 + 0.2 is 0.3, whole numbers are exact, nothing hangs.

Whole numbers are calculated as integers, all others in decimal with 34 digits. Every number in and out lies
within the range of a 64-bit float, which bounds the time and the size of every result.
"""

import decimal
import math
from collections.abc import Callable

from ropewalk_mcp_common.errors import CodedError

Number = int | float

# The first whole number beyond the range of a 64-bit float (about 1.8e308) and the last that it counts one by one.
_TOO_LARGE = 2**1024
_EXACT = 2**53
_CONTEXT = decimal.Context(
    prec=34, Emax=400, Emin=-400, traps=[decimal.Overflow, decimal.InvalidOperation, decimal.DivisionByZero]
)
_RANGE = "results must stay below 1.8e308; use smaller numbers"


def number(value: object) -> Number:
    """Return the number that an argument means, whole where it can be; ValueError says what is allowed."""
    allowed = "use a finite number below 1.8e308, such as 21.5"
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise ValueError(allowed) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(allowed)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(allowed)
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if abs(value) >= _TOO_LARGE:
        raise ValueError(allowed)
    return value


def _bounded(value: Number | decimal.Decimal, what: str) -> Number:
    if isinstance(value, int):
        if abs(value) >= _TOO_LARGE:
            raise CodedError("INVALID_INPUT", f"{what} is too large; {_RANGE}")
        return value
    result = float(value)
    if not math.isfinite(result):
        raise CodedError("INVALID_INPUT", f"{what} is too large; {_RANGE}")
    return number(result)


def _decimal(value: Number) -> decimal.Decimal:
    # By way of repr: the shortest text that means this float is what the caller wrote.
    return decimal.Decimal(repr(value))


def _in_decimal(
    operation: Callable[[decimal.Decimal, decimal.Decimal], decimal.Decimal], a: Number, b: Number, what: str
) -> Number:
    try:
        return _bounded(operation(_decimal(a), _decimal(b)), what)
    except decimal.Overflow:
        raise CodedError("INVALID_INPUT", f"{what} is too large; {_RANGE}") from None


def _whole(a: Number, b: Number) -> bool:
    return isinstance(a, int) and isinstance(b, int)


def add(a: Number, b: Number) -> Number:
    """Return a + b."""
    what = f"{a} + {b}"
    return _bounded(a + b, what) if _whole(a, b) else _in_decimal(_CONTEXT.add, a, b, what)


def subtract(a: Number, b: Number) -> Number:
    """Return a - b."""
    what = f"{a} - {b}"
    return _bounded(a - b, what) if _whole(a, b) else _in_decimal(_CONTEXT.subtract, a, b, what)


def multiply(a: Number, b: Number) -> Number:
    """Return a * b."""
    what = f"{a} * {b}"
    return _bounded(a * b, what) if _whole(a, b) else _in_decimal(_CONTEXT.multiply, a, b, what)


def divide(a: Number, b: Number) -> Number:
    """Return a / b, whole where b divides a."""
    what = f"{a} / {b}"
    if b == 0:
        raise CodedError("INVALID_INPUT", f"b is 0 in {what}; division by zero has no result: use any other number")
    if isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return _in_decimal(_CONTEXT.divide, a, b, what)


def power(base: Number, exponent: Number) -> Number:
    """Return base to the power of exponent; 0 to the power of 0 is 1."""
    what = f"{base} ^ {exponent}"
    if base == 0 and exponent < 0:
        raise CodedError(
            "INVALID_INPUT", f"base is 0 in {what}, a division by zero; use another base, or an exponent of 0 or more"
        )
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        # Judged before it is calculated: 9 ^ (9 ^ 9) would take minutes and gigabytes.
        if abs(base) > 1 and (abs(base).bit_length() - 1) * exponent > 1024:
            raise CodedError("INVALID_INPUT", f"{what} is too large; {_RANGE}")
        exact = base**exponent if abs(base) > 1 else (base if exponent % 2 or base == 0 else 1)
        return _bounded(1 if exponent == 0 else exact, what)
    if base < 0 and isinstance(exponent, float) and not exponent.is_integer():
        raise CodedError(
            "INVALID_INPUT",
            f"base is {base} and exponent {exponent}; a negative base needs a whole exponent, or the "
            "result is not a real number",
        )
    return _in_decimal(_CONTEXT.power, base, exponent, what)
