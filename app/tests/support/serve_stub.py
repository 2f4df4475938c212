"""A real server around the stub, with GENAI_* settings: `python serve_stub.py SECONDS` takes that long to predict;
`python serve_stub.py loading` never gets ready.
"""

import sys

from stub import StubEngine

from genai_inference import logs
from genai_inference.server import serve
from genai_inference.settings import read_settings

if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    if sys.argv[1] == "loading":
        serve(settings, lambda _: StubEngine())
    else:
        engine = StubEngine(seconds=float(sys.argv[1]))
        engine.may_load.set()
        serve(settings, lambda _: engine)
