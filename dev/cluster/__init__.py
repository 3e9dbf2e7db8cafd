"""A complete one-machine Kubernetes from pinned sources, for the demo and the tests.

It needs a Debian machine, root and the package registries; it needs neither Docker nor kind. It uses nothing but the
standard library, because it runs before anything else has been installed. It is a tool for this repository's
developers and is never part of a real installation.
"""
