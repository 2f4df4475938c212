"""The fixtures: a browser's page, and servers for it."""

from chromium import chromium, page, server, two_models
from processes import start

__all__ = ["chromium", "page", "server", "start", "two_models"]
