# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rendered tree on disk: what of it is ours, what has to change, and changing all of it or nothing.

A file is ours when its first line says so (see `render.mark`). No other is ever written over or removed.
"""
from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import stat
import tempfile
import typing as t

from ..errors import Busy, InvalidInput
from ..objects.masks import HIDDEN, masked_pair
from .render import IGNORE, KUSTOMIZATION, MARK, Files, Rendered, is_secret, mark, to_yaml, top

STAGE = ".genai-platform-"
# Kustomize refuses a folder with two of these.
_OTHER_KUSTOMIZATIONS = ("kustomization.yml", "Kustomization")
_COMPONENT_FOLDER = re.compile(r"^[a-z][a-z0-9_]*$")
PUBLIC, PRIVATE = 0o644, 0o600


@dataclasses.dataclass(frozen=True)
class Change:
    """One file that differs: `old` is None for a new one, `new` for one that goes. Equal sides: only its mode is wrong."""

    path: str
    old: str | None
    new: str | None


class Tree:
    """The tree of one platform in the folder `dest`, which need not exist yet."""

    def __init__(self, dest: str, platform: str) -> None:
        self.dest = pathlib.Path(os.path.realpath(dest))
        self.platform = platform

    def update(self, rendered: Rendered, only: t.Collection[str] | None, check: bool) -> list[Change]:
        """Makes the tree what was rendered, unless it only checks. Returns what changes; an error leaves the tree as it was."""
        with _explained(self.dest):
            changes = self.changes(rendered, only)
            if changes and not check:
                with self._locked():
                    changes = self.changes(rendered, only)
                    self._swap(changes)
        return changes

    # --- decide ------------------------------------------------------------------------------------------------------

    def changes(self, rendered: Rendered, only: t.Collection[str] | None) -> list[Change]:
        """What has to change, by path. Where `only` names components, those of others stay as they are."""
        folders = self._folders()
        mine = {path: text for folder in ("", *folders) for path, text in self._mine(folder)}
        others = set() if only is None else {name for name in folders if f"{name}/{KUSTOMIZATION}" in mine} - set(only)
        wanted: Files = {path: text for files in rendered.components.values() for path, text in files.items()}
        wanted.update(top({*rendered.components, *others}, self.platform))
        self._assert_free(wanted, mine)
        stale = {path for path in mine if path not in wanted and (only is None or _component(path) in ("", *only))}
        both = [Change(path, mine.get(path), wanted.get(path)) for path in sorted({*wanted, *stale})]
        return [change for change in both if change.old != change.new or self._too_open(change.path)]

    def _folders(self) -> list[str]:
        """Folders of the tree that could be a component's."""
        if not self.dest.is_dir():
            return []
        entries = [entry for entry in os.scandir(self.dest) if entry.is_dir(follow_symlinks=False)]
        return sorted(entry.name for entry in entries if _COMPONENT_FOLDER.match(entry.name))

    def _mine(self, folder: str) -> t.Iterator[tuple[str, str]]:
        """Path and text of our files directly in one folder."""
        if not (self.dest / folder).is_dir():
            return
        for entry in os.scandir(self.dest / folder):
            if entry.is_file(follow_symlinks=False) and (entry.name == IGNORE or entry.name.endswith(".yaml")):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if _first_line(entry.path) == mark(path, self.platform):
                    yield path, pathlib.Path(entry.path).read_bytes().decode("utf-8", errors="replace")

    def _assert_free(self, wanted: Files, mine: Files) -> None:
        """Refuses what somebody else has put where the tree has to be."""
        if self.dest.exists() and not self.dest.is_dir():
            raise InvalidInput(f"dest {self.dest} is not a folder; nothing was written")
        folders = sorted({_component(path) for path in wanted} - {""})
        taken = [name for name in folders if os.path.lexists(self.dest / name) and not _is_folder(self.dest / name)]
        needed = [path for path in wanted if path not in mine]
        needed += [os.path.join(folder, name) for folder in ("", *folders) if wanted for name in _OTHER_KUSTOMIZATIONS]
        taken += [path for path in needed if _component(path) not in taken and os.path.lexists(self.dest / path)]
        if taken:
            lines = [f"{path}: {self._whose(path)}" for path in sorted(taken)]
            said = f"dest {self.dest} holds what this task has not written and will not overwrite; move it away or choose another dest:"
            raise InvalidInput(f"{said}\n- " + "\n- ".join(lines), errors=lines)

    def _whose(self, path: str) -> str:
        full = self.dest / path
        if full.is_symlink():
            return "a link"
        if not full.is_file():
            return "a folder" if full.is_dir() else "no plain file"
        line = _first_line(full)
        return f"it says {line[2:]!r}" if line.startswith(MARK) else "a file of somebody else's"

    def _too_open(self, path: str) -> bool:
        """Whether others may read a Secret of ours. The mode of everything else is Git's and the user's business."""
        full = self.dest / path
        return is_secret(path) and full.is_file() and stat.S_IMODE(full.stat().st_mode) & ~PRIVATE != 0

    # --- do ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Keeps a second task out of the folder, which is made where it is missing, and goes again when the work fails."""
        made = [folder for folder in (self.dest, *self.dest.parents) if not folder.exists()]
        try:
            self.dest.mkdir(parents=True, exist_ok=True)
            with _handle(self.dest) as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Busy(f"another task renders into {self.dest} at this moment; nothing was written") from None
                yield
        except BaseException:
            _remove_empty(made)
            raise

    def _swap(self, changes: list[Change]) -> None:
        """Writes everything beside the tree first; then come only renames, which are taken back when one fails."""
        self._remove_leftovers()
        stage = pathlib.Path(tempfile.mkdtemp(prefix=STAGE, dir=self.dest))
        undo: list[tuple[pathlib.Path, pathlib.Path | None]] = []
        try:
            self._fill(stage, changes)
            for number, change in enumerate(changes):
                target = self.dest / change.path
                target.parent.mkdir(exist_ok=True)
                undo.append((target, None if change.old is None else stage / f"{number}.old"))
                if change.new is None:
                    target.unlink()
                else:
                    os.replace(stage / f"{number}.new", target)
        except BaseException as exc:
            if not _taken_back(undo):
                said = f"dest {self.dest}: {exc}; not every file could be put back, the old ones that are missing are in {stage}"
                raise InvalidInput(said) from exc
            self._clear(stage, changes)
            raise
        self._clear(stage, changes)

    def _clear(self, stage: pathlib.Path, changes: list[Change]) -> None:
        _remove_empty([self.dest / _component(change.path) for change in changes if _component(change.path)])
        shutil.rmtree(stage, ignore_errors=True)

    def _fill(self, stage: pathlib.Path, changes: list[Change]) -> None:
        """Puts both sides of every change into the stage, which Git does not see: Secrets of a killed run stay out of it."""
        _write(stage / IGNORE, f"{MARK}\n*\n", PRIVATE)
        for number, change in enumerate(changes):
            if change.new is not None:
                _write(stage / f"{number}.new", change.new, PRIVATE if is_secret(change.path) else PUBLIC)
            if change.old is not None:
                shutil.copy2(self.dest / change.path, stage / f"{number}.old")

    def _remove_leftovers(self) -> None:
        """Stages of runs that were killed. Nobody else is at work here."""
        for stage in self.dest.glob(f"{STAGE}*"):
            if stage.is_dir() and _first_line(stage / IGNORE) == MARK:
                shutil.rmtree(stage)


def _component(path: str) -> str:
    """The component a path belongs to; '' for the files at the top."""
    return path.rpartition("/")[0]


def _is_folder(path: pathlib.Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _first_line(path: str | os.PathLike) -> str:
    """At most 1000 bytes of it: anything longer is not ours. '' for what is not there or no file."""
    try:
        with open(path, "rb") as handle:
            return handle.readline(1000).decode("utf-8", errors="replace").rstrip("\r\n")
    except (IsADirectoryError, NotADirectoryError, FileNotFoundError):
        return ""


@contextlib.contextmanager
def _handle(folder: pathlib.Path) -> t.Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _write(path: pathlib.Path, text: str, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "w", encoding="utf-8") as handle:
        handle.write(text)
        os.fchmod(handle.fileno(), mode)


def _taken_back(undo: list[tuple[pathlib.Path, pathlib.Path | None]]) -> bool:
    """Puts every file back, or removes it where there was none; False when one of them resists."""
    complete = True
    for target, before in reversed(undo):
        try:
            if before is None:
                target.unlink(missing_ok=True)
            else:
                os.replace(before, target)
        except OSError:
            complete = False
    return complete


def _remove_empty(folders: t.Iterable[pathlib.Path]) -> None:
    """Innermost first; a folder with anything in it stays."""
    for folder in sorted(set(folders), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _explained(dest: pathlib.Path) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        where = exc.filename or dest
        raise InvalidInput(f"dest {dest}: {where}: {exc.strerror or exc}; the tree is as it was before") from exc


# --- people -----------------------------------------------------------------------------------------------------------


def file_diff(change: Change) -> dict:
    """One Ansible diff; values of Secrets are hidden, the names of the keys that differ are not."""
    old, new = change.old or "", change.new or ""
    if is_secret(change.path):
        old, new = _masked(old, new)
    return {"before_header": change.path, "after_header": change.path, "before": old, "after": new}


def _masked(old: str, new: str) -> tuple[str, str]:
    was, now = masked_pair(_secret_of(old), _secret_of(new))
    return to_yaml(was) if old else "", to_yaml(now) if new else ""


def _secret_of(text: str) -> dict:
    """The Secret in the text of a file. What somebody has made of it that is none of ours is hidden as a whole."""
    import yaml

    try:
        body = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("data", {}), dict) or "stringData" in body:
        return {"kind": "Secret", "data": {HIDDEN: HIDDEN}}
    return body


def outcome(tree: Tree, rendered: Rendered, changes: list[Change], with_diff: bool) -> dict:
    """The result of the module."""
    files = [path for paths in rendered.components.values() for path in paths]
    result = {
        "changed": bool(changes),
        "dest": str(tree.dest),
        "objects": sum(os.path.basename(path) not in (KUSTOMIZATION, IGNORE) for path in files),
        "created": [change.path for change in changes if change.old is None],
        "updated": [change.path for change in changes if change.old is not None and change.new is not None],
        "removed": [change.path for change in changes if change.new is None],
        "left_out": rendered.left_out,
    }
    return {**result, "diff": [file_diff(change) for change in changes]} if with_diff else result
