"""One agent in one pod: HTTP outside, a single worker with Strands inside. Holds no Kubernetes client and no token."""

__version__ = "0.1.0"
