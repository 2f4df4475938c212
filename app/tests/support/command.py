"""The real command, until it ends."""

import os
import subprocess
import sys


def start(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of the real command with these variables."""
    done = run(*arguments, **variables)
    return done.returncode, done.stderr


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The real command with these arguments and variables, after its end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-m", "genai_inference", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
