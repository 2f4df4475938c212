# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection, installs it as a user would, and checks what was installed.

Checked from another folder: documentation and playbooks are found under their full names; then ansible-test's sanity tests.
`--quick` leaves out those that take long (see SLOW). Works without internet beyond a Python package index: ansible-test keeps
its environments under ~/.ansible/test, about two minutes the first time.
"""
from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
INSTALLED = BUILD / "installed"
BIN = pathlib.Path(sys.executable).parent

# Collections whose doc fragments ours extend; `make collections` has put them here.
NEEDED = ("kubernetes", "community")
DEPENDENCIES = ROOT / ".collections" / "ansible_collections"

# pylint takes three quarters of the whole time.
SLOW = ("pylint",)
# app/ is a program with a licence, tests and a linter configuration of its own; the others hold manifests, several in a file.
NOT_ANSIBLE = ("app/", "molecule/openshift/files/", "roles/policy/examples/")

DOCUMENTED = {
    "module": ("release", "release_info", "render", "verify", "drift", "unlock", "gpu_nodes", "gpu_nodes_info"),
    "lookup": ("manifests", "misspelt"),
    "filter": ("network_policies", "tag_selection"),
}
PLAYBOOKS = ("site", "rollback", "verify", "drift", "history", "render", "teardown", "unlock", "bootstrap_rbac")


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds, installs and checks the collection.")
    parser.add_argument("--quick", action="store_true", help=f"without {', '.join(SLOW)}")
    arguments = parser.parse_args()
    name, tarball = build()
    target = install(name, tarball)
    with tempfile.TemporaryDirectory() as elsewhere:
        check_documentation(name, elsewhere)
        check_playbooks(name, elsewhere)
    return sanity(target, arguments.quick)


def build() -> tuple[str, pathlib.Path]:
    """Builds the archive. Returns the collection's full name and the archive."""
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    archive = BUILD / f"{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz"
    BUILD.mkdir(exist_ok=True)
    call("ansible-galaxy", "collection", "build", ROOT, "--force", "--output-path", BUILD, cwd=BUILD)
    return f"{galaxy['namespace']}.{galaxy['name']}", archive


def install(name: str, archive: pathlib.Path) -> pathlib.Path:
    """Installs the archive with what it depends on beside it. Returns the folder of the installed collection."""
    shutil.rmtree(INSTALLED, ignore_errors=True)
    folder = INSTALLED / "ansible_collections"
    folder.mkdir(parents=True)
    for namespace in NEEDED:
        if not (DEPENDENCIES / namespace).is_dir():
            sys.exit(f"the collections of {namespace} are not below {DEPENDENCIES.parent.name}/: run `make collections`")
        (folder / namespace).symlink_to(DEPENDENCIES / namespace)
    call("ansible-galaxy", "collection", "install", archive, "-p", INSTALLED, "--no-deps", "--offline", cwd=BUILD)
    return folder.joinpath(*name.split("."))


def check_documentation(name: str, elsewhere: str) -> None:
    """ansible-doc ends well even when it has found nothing: then only its standard error names the plugin."""
    for kind, plugins in DOCUMENTED.items():
        wanted = [f"{name}.{plugin}" for plugin in plugins]
        text = call("ansible-doc", "-t", kind, *wanted, cwd=elsewhere)
        missing = set(wanted) - set(re.findall(r"^> [A-Z]+ (\S+) \(", re.sub(r"\x1b\[[0-9;]*m", "", text), re.MULTILINE))
        if missing:
            sys.exit(f"ansible-doc -t {kind} did not find {', '.join(sorted(missing))}:\n{text}")


def check_playbooks(name: str, elsewhere: str) -> None:
    call("ansible-playbook", "--syntax-check", "-i", "platforms,", *(f"{name}.{playbook}" for playbook in PLAYBOOKS), cwd=elsewhere)


def sanity(target: pathlib.Path, quick: bool) -> int:
    """Runs ansible-test in the installed collection; returns its exit status."""
    provide_pip()
    if shutil.which("git"):
        # Else ansible-test asks the repository around it which files are ours, and that ignores the whole of build/.
        call("git", "init", "--quiet", ".", cwd=target)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["ansible-test", "sanity", "--color", "no", "--truncate", "0", "--requirements", "--python", version]
    for path in NOT_ANSIBLE:
        command += ["--exclude", path]
    for test in SLOW if quick else ():
        command += ["--skip-test", test]
    print(f"$ {' '.join(command)}", flush=True)
    return subprocess.run(command, cwd=target, env=environment(), check=False).returncode


def provide_pip() -> None:
    """Puts a bootstrap script where ansible-test looks before it downloads one: Python brings a pip of its own."""
    import ansible_test._internal.python_requirements as requirements

    # The name carries the version of pip that this ansible-core asks for.
    found = re.search(r"\bpip='([0-9.]+)'", pathlib.Path(requirements.__file__).read_text(encoding="utf-8"))
    script = pathlib.Path.home() / ".ansible/test/cache" / f"get_pip_{found[1].replace('.', '_')}.py" if found else None
    if script and not script.exists():
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")


def environment() -> dict[str, str]:
    """The environment of somebody who has installed the collection: nothing of this repository's configuration."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(INSTALLED),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


def call(*command: object, cwd: str | pathlib.Path) -> str:
    """Runs a command and returns its standard output; ends the run with all that it printed when it fails."""
    words = [str(word) for word in command]
    print(f"$ {' '.join(words)}".replace(f"{ROOT}/", ""), flush=True)
    done = subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\n{words[0]} failed with exit status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
