"""The real command, until it ends."""

import os
import subprocess
import sys


def start(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of the real command with these variables."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-m", "genai_inference", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr
