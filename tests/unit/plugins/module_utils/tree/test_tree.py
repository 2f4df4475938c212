# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tree on disk: whose files are whose, and all or nothing."""
from __future__ import annotations

import fcntl
import os
import pathlib
import stat

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import Busy, InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import prepare
from ansible_collections.genai.platform.plugins.module_utils.tree import tree as _tree
from ansible_collections.genai.platform.plugins.module_utils.tree.render import MARK, render
from ansible_collections.genai.platform.plugins.module_utils.tree.tree import STAGE, Tree, file_diff, outcome


def thing(kind="ConfigMap", name="one", **extra):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "ns"}, **extra}


def bundle(value="1", token="hunter2"):
    return {
        "app": [thing(data={"a": value}), thing(name="two", data={"a": value}), thing("Secret", stringData={"token": token, "user": "me"})],
        "web": [thing("Service", spec={"x": value})],
    }


def write(dest, what, complete=True, check=False, platform="genai", secrets=True):
    """What changes, as {path: +, ~ or -}."""
    rendered = render(prepare(what, platform).values(), platform, secrets)
    changes = Tree(str(dest), platform).update(rendered, None if complete else set(what), check)
    return {change.path: "+" if change.old is None else "-" if change.new is None else "~" for change in changes}


def content(dest):
    """{path: (bytes, mode)} of everything below `dest`; {} without it."""
    return {
        str(path.relative_to(dest)): (path.read_bytes() if path.is_file() else None, stat.S_IMODE(path.lstat().st_mode))
        for path in sorted(pathlib.Path(dest).rglob("*"))
    }


@pytest.fixture(name="dest")
def folder(tmp_path):
    return tmp_path / "clusters" / "production"


FILES = {
    "app/.gitignore", "app/configmap_ns_one.yaml", "app/configmap_ns_two.yaml", "app/kustomization.yaml", "app/secret_ns_one.yaml",
    "kustomization.yaml", "web/kustomization.yaml", "web/service_ns_one.yaml",
}  # fmt: skip


def test_everything_is_written(dest):
    assert write(dest, bundle()) == dict.fromkeys(sorted(FILES), "+")
    assert set(content(dest)) == FILES | {"app", "web"}


def test_a_second_time_touches_nothing(dest):
    write(dest, bundle())
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*")}
    assert write(dest, bundle()) == {}
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*")} == before


def test_check_mode_says_the_same_and_writes_nothing(dest, tmp_path):
    assert write(dest, bundle(), check=True) == dict.fromkeys(FILES, "+")
    assert not list(tmp_path.iterdir())
    write(dest, bundle())
    before = content(dest)
    said = write(dest, bundle("2"), check=True)
    assert content(dest) == before and said == write(dest, bundle("2"))


def test_only_what_differs_is_written(dest):
    write(dest, bundle())
    assert write(dest, {**bundle(), "web": [thing("Service", spec={"x": "2"})]}) == {"web/service_ns_one.yaml": "~"}


def test_stale_files_go_and_empty_folders_with_them(dest):
    write(dest, bundle())
    said = write(dest, {"app": bundle()["app"][1:2]})
    assert said == {
        "app/.gitignore": "-", "app/configmap_ns_one.yaml": "-", "app/kustomization.yaml": "~", "app/secret_ns_one.yaml": "-",
        "kustomization.yaml": "~", "web/kustomization.yaml": "-", "web/service_ns_one.yaml": "-",
    }  # fmt: skip
    assert set(content(dest)) == {"app", "app/configmap_ns_two.yaml", "app/kustomization.yaml", "kustomization.yaml"}


def test_nothing_described_leaves_nothing_of_ours(dest):
    write(dest, bundle())
    (dest / "web" / "notes.txt").write_text("mine")
    write(dest, {})
    assert set(content(dest)) == {"web", "web/notes.txt"}


def test_a_part_leaves_the_others_and_their_place_in_the_list(dest):
    write(dest, bundle())
    before = content(dest)
    assert write(dest, {"web": [thing("Service", spec={"x": "2"})]}, complete=False) == {"web/service_ns_one.yaml": "~"}
    assert {path: seen for path, seen in content(dest).items() if path != "web/service_ns_one.yaml"} == {
        path: seen for path, seen in before.items() if path != "web/service_ns_one.yaml"
    }
    assert write(dest, {"new": [thing()]}, complete=False)["kustomization.yaml"] == "~"
    assert "- app\n- new\n- web\n" in (dest / "kustomization.yaml").read_text()


def test_a_part_that_describes_nothing_any_more_goes(dest):
    write(dest, bundle())
    said = write(dest, {"web": []}, complete=False)
    assert said == {"kustomization.yaml": "~", "web/kustomization.yaml": "-", "web/service_ns_one.yaml": "-"}
    assert "web" not in (dest / "kustomization.yaml").read_text()


def test_files_of_others_stay(dest):
    write(dest, bundle())
    for path in ("README.md", "app/patch.yaml", "other/kustomization.yaml", ".git/config", "web/.gitkeep"):
        (dest / path).parent.mkdir(exist_ok=True)
        (dest / path).write_text("mine\n")
    # A copy is no longer ours, whatever its first line says.
    (dest / "app" / "copy.yaml").write_bytes((dest / "app" / "configmap_ns_one.yaml").read_bytes())
    before = content(dest)
    write(dest, {})
    kept = {"README.md", "app/patch.yaml", "app/copy.yaml", "other/kustomization.yaml", ".git/config", "web/.gitkeep"}
    assert {path for path, (text, _mode) in content(dest).items() if text is not None} == kept
    assert all(content(dest)[path] == before[path] for path in kept)


def put(path, text="mine\n"):
    def prepare_it(dest):
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        (dest / path).write_text(text)

    return prepare_it


def link(path):
    def prepare_it(dest):
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        (dest / path).symlink_to(dest.parent)

    return prepare_it


IN_THE_WAY = [
    ("kustomization of somebody else", put("kustomization.yaml"), "- kustomization.yaml: a file of somebody else's"),
    ("another spelling of kustomization", put("app/kustomization.yml"), "- app/kustomization.yml: a file of somebody else's"),
    ("yet another", put("Kustomization"), "- Kustomization: a file of somebody else's"),
    ("manifest of somebody else", put("app/configmap_ns_one.yaml", "# Rendered by hand\n"), "- app/configmap_ns_one.yaml"),
    ("gitignore", put("app/.gitignore", "*.bak\n"), "- app/.gitignore: a file of somebody else's"),
    ("empty file", put("web/service_ns_one.yaml", ""), "- web/service_ns_one.yaml"),
    ("folder as a file", put("app/kustomization.yaml/x"), "- app/kustomization.yaml: a folder"),
    ("file as a folder", put("app"), "- app: a file of somebody else's"),
    ("pipe", lambda dest: (put("app/x")(dest), os.mkfifo(dest / "app" / "kustomization.yaml")), "- app/kustomization.yaml: no plain file"),
    ("linked folder", link("app"), "- app: a link"),
    ("linked file", link("web/service_ns_one.yaml"), "- web/service_ns_one.yaml: a link"),
]


@pytest.mark.parametrize(("what", "prepare_it", "said"), IN_THE_WAY, ids=[row[0] for row in IN_THE_WAY])
@pytest.mark.parametrize("check", [True, False])
def test_what_is_in_the_way_is_refused(what, prepare_it, said, check, dest):
    dest.mkdir(parents=True)
    prepare_it(dest)
    before = content(dest)
    with pytest.raises(InvalidInput) as caught:
        write(dest, bundle(), check=check)
    assert said in caught.value.message and str(dest) in caught.value.message and len(caught.value.facts["errors"]) == 1
    assert content(dest) == before


def test_all_that_is_in_the_way_is_named_at_once(dest):
    for path in ("kustomization.yaml", "app/configmap_ns_one.yaml", "app/kustomization.yaml"):
        put(path)(dest)
    with pytest.raises(InvalidInput) as caught:
        write(dest, bundle())
    assert len(caught.value.facts["errors"]) == 3


def test_the_tree_of_another_platform_is_refused(dest):
    write(dest, bundle(), platform="other")
    with pytest.raises(InvalidInput, match="kustomization.yaml of the platform other"):
        write(dest, bundle())


def test_dest_is_a_file(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InvalidInput, match="is not a folder"):
        write(tmp_path / "x", bundle())
    with pytest.raises(InvalidInput, match="Not a directory|File exists"):
        write(tmp_path / "x" / "y", bundle())


def test_modes(dest):
    before = os.umask(0o077)
    try:
        write(dest, bundle())
    finally:
        os.umask(before)
    modes = {path: mode for path, (text, mode) in content(dest).items() if text is not None}
    assert modes.pop("app/secret_ns_one.yaml") == 0o600
    assert set(modes.values()) == {0o644}


def test_a_secret_that_others_may_read_is_a_change(dest):
    write(dest, bundle())
    (dest / "app" / "secret_ns_one.yaml").chmod(0o640)
    (dest / "app" / "configmap_ns_one.yaml").chmod(0o664)  # Git's business
    assert write(dest, bundle(), check=True) == write(dest, bundle()) == {"app/secret_ns_one.yaml": "~"}
    assert content(dest)["app/secret_ns_one.yaml"][1] == 0o600
    assert write(dest, bundle()) == {}


def test_secrets_that_are_left_out_go(dest):
    write(dest, bundle())
    assert write(dest, bundle(), secrets=False) == {"app/.gitignore": "-", "app/kustomization.yaml": "~", "app/secret_ns_one.yaml": "-"}


def test_other_line_ends_are_a_change(dest):
    write(dest, bundle())
    path = dest / "web" / "service_ns_one.yaml"
    right = path.read_bytes()
    path.write_bytes(right.replace(b"\n", b"\r\n"))
    assert write(dest, bundle()) == {"web/service_ns_one.yaml": "~"}
    assert path.read_bytes() == right


# --- all or nothing -----------------------------------------------------------------------------------------------------
CALLS = ("replace", "fchmod", "unlink", "open")


class Breaks:
    """Lets one of the calls fail, the n-th that is made."""

    def __init__(self, monkeypatch, at, exception):
        self.count = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), at, exception))

    def _wrap(self, real, at, exception):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == at:
                raise exception
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("exception", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("before", [None, bundle()], ids=["new", "changed"])
def test_a_failure_at_any_point_leaves_the_old_tree(before, exception, tmp_path):
    """Every single call that touches the disk fails once, until one comes so late that all is done."""
    after = {"app": [*bundle("2")["app"][1:], thing(name="new")], "third": [thing("Role")]}
    write(tmp_path / "new" / "tree", after)
    new = content(tmp_path / "new")
    for at in range(1, 100):
        dest = tmp_path / str(at) / "tree"
        if before:
            write(dest, before)
        old, said = content(dest.parent), ""
        with pytest.MonkeyPatch.context() as patched:
            Breaks(patched, at, exception)
            try:
                write(dest, after)
            except (InvalidInput, KeyboardInterrupt) as exc:
                said = str(exc)
        seen = {path: what for path, what in content(dest.parent).items() if STAGE not in path}
        if seen == new:
            break
        assert content(dest.parent) == old, f"call {at}: {said}"
        assert "the tree is as it was before" in said or isinstance(exception, KeyboardInterrupt)
    assert 15 < at < 99


def test_what_cannot_be_put_back_is_kept_and_named(dest, monkeypatch):
    """The disk fails for good, after the first file."""
    write(dest, bundle())
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(InvalidInput, match="Input/output error.*not every file could be put back.* are in ") as caught:
        write(dest, bundle("2"))
    stage = pathlib.Path(caught.value.message.rpartition(" are in ")[2])
    assert any('a: "1"' in path.read_text() for path in stage.glob("*.old"))


def test_what_a_killed_run_left_is_cleared_away(dest):
    write(dest, bundle())
    stage = dest / f"{STAGE}killed"
    stage.mkdir()
    (stage / ".gitignore").write_text(f"{MARK}\n*\n")
    (stage / "0.new").write_text("half")
    foreign = dest / f"{STAGE}notes"
    foreign.mkdir()
    assert write(dest, bundle()) == {}
    write(dest, bundle("2"))
    assert not stage.exists() and foreign.exists()


def test_git_does_not_see_the_stage(dest, monkeypatch):
    seen = []
    monkeypatch.setattr(_tree.Tree, "_remove_leftovers", lambda self: None)
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append((pathlib.Path(a).parent / ".gitignore").read_text()), real(a, b)))
    write(dest, bundle())
    assert len(seen) == len(FILES) and set(seen) == {f"{MARK}\n*\n"}


def test_two_at_once(dest):
    write(dest, bundle())
    before, handle = content(dest), os.open(dest, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="at this moment"):
        write(dest, bundle("2"))
    assert content(dest) == before
    os.close(handle)
    assert write(dest, bundle("2"))


# --- people -------------------------------------------------------------------------------------------------------------
def diffs(dest, what):
    rendered = render(prepare(what, "genai").values(), "genai")
    return {change.path: file_diff(change) for change in Tree(str(dest), "genai").update(rendered, None, check=True)}


def test_diff_hides_the_values_of_secrets(dest):
    new = diffs(dest, bundle())
    assert new["app/secret_ns_one.yaml"]["before"] == "" and "token: (hidden, changed)" not in str(new)
    write(dest, bundle())
    changed = diffs(dest, bundle("2", token="hunter3"))
    shown = changed["app/secret_ns_one.yaml"]
    assert 'token: "(hidden)"' in shown["before"] and 'token: "(hidden, changed)"' in shown["after"] and 'user: "(hidden)"' in shown["after"]
    gone = diffs(dest, {})["app/secret_ns_one.yaml"]
    assert gone["after"] == "" and gone["before"]
    for secret in ("hunter", "aHVudGVy", "bWU="):
        assert secret not in str([new, changed, gone])
    assert '-  a: "1"'[1:] in changed["app/configmap_ns_one.yaml"]["before"]


@pytest.mark.parametrize("text", ["data: [hunter2\n", "stringData: {token: hunter2}\n", "hunter2\n", "data: hunter2\n", "a: 1\n---\nb: hunter2\n"])
def test_diff_hides_what_somebody_made_of_a_secret(text, dest):
    write(dest, bundle())
    path = dest / "app" / "secret_ns_one.yaml"
    path.write_text(f"{path.read_text().splitlines()[0]}\n{text}")
    assert "hunter2" not in str(diffs(dest, bundle()))


def test_outcome(dest):
    rendered = render(prepare(bundle(), "genai").values(), "genai", secrets=False)
    tree = Tree(str(dest), "genai")
    changes = tree.update(rendered, None, check=False)
    result = outcome(tree, rendered, changes, with_diff=False)
    assert result == {
        "changed": True, "dest": str(dest), "objects": 3, "updated": [], "removed": [], "left_out": ["Secret ns/one"],
        "created": sorted(FILES - {"app/.gitignore", "app/secret_ns_one.yaml"}),
    }  # fmt: skip
    assert len(outcome(tree, rendered, changes, with_diff=True)["diff"]) == 6
    assert outcome(tree, rendered, [], with_diff=True)["changed"] is False
