# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lowest and the newest versions that the collection says it runs with, each in a fresh clone, without make.

A clone is what git has of this working tree. Its environment is `pip install -r requirements.txt` with the versions of one combination, and
the other collections lie where `ansible-galaxy collection install -r requirements.yml` would put them. No configuration leads back here.
"""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
PLAYBOOKS = ("site", "rollback", "verify", "drift", "history", "render", "teardown", "unlock", "bootstrap_rbac")
UNIT = ("module_utils/cluster/test_client.py", "lookup", "plugin_utils/test_selection.py", "plugin_utils/test_spelling.py", "action")
TESTING = tuple(line for line in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines() if line.startswith("pytest"))


@dataclasses.dataclass(frozen=True)
class Combination:
    """`carrier`: the PyPI package ansible that carries kubernetes.core `core`. `python`: the lowest minor that `ansible` runs on."""

    ansible: str
    core: str
    carrier: str
    python: int
    pins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((f"ansible-core {self.ansible}, kubernetes.core {self.core}", *self.pins))


COMBINATIONS = (
    Combination("2.19.0", "6.1.0", "12.0.0", 11, ("kubernetes==31.0.0",)),
    Combination("2.20.10", "6.4.0", "13.8.0", 12),
    Combination("2.21.5", "6.6.0", "14.5.0", 12),
)


def main() -> int:
    """Prints a line for each combination. The trees they render have to be the same, byte for byte."""
    trees: dict[str, str] = {}
    for combination in COMBINATIONS:
        started = time.monotonic()
        python = interpreter(combination.python)
        if not python:
            print(f"{combination}: NOT RUN, it needs Python 3.{combination.python} or newer and there is none", flush=True)
            continue
        with clone(combination, python) as (folder, environment):
            trees[str(combination)] = exercise(folder, environment)
        print(f"{combination}: {version(python)}, passed in {time.monotonic() - started:.0f} s", flush=True)
    if len(set(trees.values())) > 1:
        sys.exit(f"render.yml writes different trees: {trees}")
    return 0


def exercise(folder: pathlib.Path, environment: dict[str, str]) -> str:
    """What needs no cluster. Returns a hash of the tree that render.yml writes."""

    def call(*command: object) -> None:
        run(command, folder, environment)

    call("ansible-galaxy", "collection", "install", "-r", "requirements.yml", "--offline")  # all that it asks for is there
    call("ansible-playbook", "--syntax-check", *(f"{name}.yml" for name in PLAYBOOKS))
    tree = folder / "build" / "tree"
    call("ansible-playbook", "render.yml", "-e", f"dest={tree}")
    call("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/unit/plugins/{path}" for path in UNIT))
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path.relative_to(tree)).encode() + path.read_bytes() for path in files)).hexdigest()


def run(command: t.Sequence[object], folder: pathlib.Path, environment: dict[str, str]) -> str:
    """What a command prints; ends the program with that when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(words)} failed with exit status {done.returncode} in {environment['PATH'].partition(os.pathsep)[0]}")
    return done.stdout


@contextlib.contextmanager
def clone(combination: Combination, python: pathlib.Path) -> t.Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """A fresh clone and the environment of somebody who works in it."""
    home = prepared(combination, python)
    with tempfile.TemporaryDirectory(prefix="genai-platform-clone-") as temporary:
        folder = pathlib.Path(temporary, "clone")
        names = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
        for name in {os.fsdecode(name) for name in names if name}:
            if os.path.lexists(ROOT / name):  # git may list what was removed a moment ago
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        for collection in (home / "collections" / "ansible_collections").iterdir():
            (folder / ".collections" / "ansible_collections" / collection.name).symlink_to(collection)
        yield folder, {"PATH": f"{home / 'venv' / 'bin'}:/usr/bin:/bin", "HOME": temporary, "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}


def prepared(combination: Combination, python: pathlib.Path) -> pathlib.Path:
    """The folder with the combination's environment and collections, made the first time. A mark says that it is complete."""
    wanted = (ROOT / "requirements.txt").read_text(encoding="utf-8") + str(combination) + combination.carrier + version(python) + "".join(TESTING)
    home = CACHE / "versions" / f"{combination.ansible}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if not (home / ".done").exists():
        shutil.rmtree(home, ignore_errors=True)
        (home / "collections").mkdir(parents=True)
        environment = dict(os.environ)
        run([python, "-m", "venv", home / "venv"], ROOT, environment)
        pins = (f"ansible-core=={combination.ansible}", *combination.pins, *TESTING)
        run([home / "venv" / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.txt", *pins], ROOT, environment)
        carrier, root = f"collections_pypi=ansible=={combination.carrier}", f"collections_root={home / 'collections'}"
        playbook = [pathlib.Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "molecule/shared/collections_of.yml"]
        run([*playbook, "-e", carrier, "-e", root], ROOT, environment)
        (home / ".done").touch()
    return home


def interpreter(minor: int) -> pathlib.Path | None:
    """A Python of that minor or a newer one: this one, one on the path, or one of pyenv's."""
    if sys.version_info >= (3, minor):
        return pathlib.Path(sys.executable).resolve()
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv") / "versions"
    for each in range(minor, minor + 3):
        on_path = shutil.which(f"python3.{each}")
        for found in (*([pathlib.Path(on_path)] if on_path else ()), *pyenv.glob(f"3.{each}.*/bin/python3")):
            if works(found):
                return found
    return None


def works(python: pathlib.Path) -> bool:
    """Whether it starts, which a shim may not, and can make environments."""
    return subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0


def version(python: pathlib.Path) -> str:
    return subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
