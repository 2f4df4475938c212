# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of genai.platform.release: keeps Secrets out of the invocation and shows progress while the module works."""
from __future__ import annotations

import json
import os
import tempfile
import threading
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
POLL_SECONDS = 0.2


class ActionModule(ActionBase):
    """Hands the bundle to the module in a private file: as an argument, `-vvv` would print it and everything in it."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        with tempfile.TemporaryDirectory(prefix="genai-platform-") as folder:
            local = self._connection.transport == "local"
            if "bundle" in args:
                args["bundle_file"] = self._handed_over(args.pop("bundle"), folder, local)
            progress = os.path.join(folder, "progress")
            if local:  # elsewhere the file would be on another machine
                args["progress_file"] = progress
            with _Tail(progress, (task_vars or {}).get("inventory_hostname", "")):
                result = self._execute_module("genai.platform.release", module_args=args, task_vars=task_vars)
        result.pop("invocation", None)
        return result

    def _handed_over(self, bundle: t.Any, folder: str, local: bool) -> str:
        path = os.path.join(folder, "bundle.json")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as handle:
            json.dump(bundle, handle)
        if local:
            return path
        remote = self._connection._shell.join_path(self._make_tmp_path(), "bundle.json")
        return self._transfer_file(path, remote)


class _Tail:
    """Prints the lines that appear in a file while a block runs."""

    def __init__(self, path: str, host: str) -> None:
        self._path, self._host, self._done = path, host, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Tail:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        position = 0
        while True:
            last = self._done.wait(POLL_SECONDS)
            if os.path.exists(self._path):
                with open(self._path, encoding="utf-8") as handle:
                    handle.seek(position)
                    # Half a line stays for the next look.
                    text = handle.read()
                text = text if last else text[: text.rfind("\n") + 1]
                position += len(text.encode())
                for line in text.splitlines():
                    display.display(f"  {self._host}: {line}")
            if last:
                return
