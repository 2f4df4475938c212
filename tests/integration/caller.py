# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the requests that its argument lists, one after the other, each by a connection of its own, and prints the answers. Runs in a pod.

Who signs a server's certificate does not matter here: what the service makes of that is what the tests look at.
"""
from __future__ import annotations

import http.client
import json
import ssl
import sys
import urllib.parse

SECONDS = 30


def connection(url: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    if url.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(url.netloc, timeout=SECONDS, context=context)
    return http.client.HTTPConnection(url.netloc, timeout=SECONDS)


def answer(asked: dict) -> dict:
    url = urllib.parse.urlsplit(asked["url"])
    to = connection(url)
    try:
        to.request(asked["method"], url.path + (f"?{url.query}" if url.query else ""), asked["body"], asked["headers"])
        got = to.getresponse()
        return {"status": got.status, "headers": {name.lower(): value for name, value in got.getheaders()}, "body": got.read().decode()}
    except OSError as error:
        return {"status": 0, "headers": {}, "body": repr(error)}
    finally:
        to.close()


print(json.dumps([answer(asked) for asked in json.loads(sys.argv[1])]))
