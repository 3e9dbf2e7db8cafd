"""Whom a connection trusts to be the server, and what went wrong in plain words where it does not. Opens nothing."""

import ssl

from ropewalk_agent.config import McpServerConfig
from ropewalk_agent.models import without_authorities

_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's verify codes for a chain that ends in nobody who is trusted (X509_V_ERR_* in openssl/x509_vfy.h)."""


class TrustError(ValueError):
    """The bundle cannot be used; the message says why."""


def trust(config: McpServerConfig) -> ssl.SSLContext | bool:
    """Return the `verify` of an HTTP client: the server's own bundle instead of the system's store, where there is one.

    Raises TrustError for a bundle without a certificate.
    """
    if config.url.startswith("http://"):
        return without_authorities()
    if config.ca_bundle is None:
        return True
    try:
        # Of an empty text OpenSSL would make the system's store.
        context = ssl.create_default_context(cadata=config.ca_bundle or "empty")
    except (ssl.SSLError, ValueError):
        raise TrustError("caBundle holds no certificate that can be read; it must be PEM text") from None
    # What somebody puts there by hand is trusted as it is: an intermediate one or the server's own too, and one that
    # lacks extensions which many private authorities leave out. Python 3.13 alone would differ in both.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def tls_words(error: BaseException, *, has_bundle: bool) -> str | None:
    """Return in plain words what TLS has against the server, or None where the error is not about that."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return f"there is no TLS at its address ({cause.reason or 'no reason told'}); https may be wrong for this port"
    said = f"its TLS certificate is not accepted: {cause.verify_message}"
    if cause.verify_code not in _UNKNOWN_ISSUER:
        return said
    if has_bundle:
        return f"{said}; the MCPServer's caBundle has none that vouches for it"
    return f"{said}; if its authority is a private one, put that one's certificate into the MCPServer's caBundle"
