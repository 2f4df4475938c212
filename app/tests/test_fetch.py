"""The command that fills a model volume, from folders and from archives on a web server that is not always well."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import package
import pytest
from command import run
from faulty import Answer, Faulty, serving
from issuer import context
from package import nothing_left, pin, refused
from waiting import eventually

from genai_inference import fetch


@pytest.fixture
def source(tmp_path: Path) -> Path:
    package.write(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "volume" / "digits" / "1.0.0"


class Archives(Faulty):
    """Serves one archive, which a test may replace."""

    archive = b""

    def __init__(self) -> None:
        super().__init__(self._answer)

    def _answer(self, path: str, _: Mapping[str, str]) -> Answer:
        return (200, {}, self.archive) if path.startswith("/model.tar") else (404, {}, b"")


@pytest.fixture
def archives(source: Path) -> Iterator[Archives]:
    server = Archives()
    server.archive = tar_of(source)
    with serving(server):
        yield server


def tar_of(folder: Path, inside: str = ".", mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        archive.add(folder, inside)
    return out.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
    return out.getvalue()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder(source: Path, target: Path) -> None:
    result = run("fetch", "--from", str(source), "--to", str(target), "--sha256", pin(source))
    assert (result.returncode, result.stderr) == (0, "")
    assert package.contents(target) == package.contents(source)
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o644}
    assert target.stat().st_mode & 0o777 == 0o755
    nothing_left(target)


def test_a_newer_package_takes_the_place_of_the_older_one(source: Path, target: Path) -> None:
    package.write(target, "0.9.0", b"old")
    (target / "left.over").write_text("")
    newest = pin(source)
    assert run("fetch", "--from", str(source), "--to", str(target), "--sha256", newest).returncode == 0
    assert package.contents(target) == package.contents(source)
    nothing_left(target)


def test_where_folders_cannot_be_swapped(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.write(target, "0.9.0", b"old")
    monkeypatch.setattr(fetch, "_exchange", lambda *_: False)
    fetch.fetch(str(source), target, pin(source), 2**20, 60)
    assert package.contents(target) == package.contents(source)
    nothing_left(target)


def test_the_swap_is_one_step_where_the_system_has_it(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert fetch._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()


@pytest.mark.parametrize("damage", ["weights.safetensors", "model.yaml"])
def test_a_damaged_package_changes_nothing(source: Path, target: Path, damage: str) -> None:
    package.write(target, "0.9.0", b"old")
    before = package.contents(target)
    wanted = pin(source)
    (source / damage).write_bytes((source / damage).read_bytes().replace(b"s", b"z"))
    result = run("fetch", "--from", str(source), "--to", str(target), "--sha256", wanted)
    refused(result, f"{source}: {damage}: ")
    assert package.contents(target) == before
    nothing_left(target)


def test_a_whole_package_that_is_not_the_pinned_one(source: Path, target: Path) -> None:
    result = run("fetch", "--from", str(source), "--to", str(target), "--sha256", "0" * 64)
    refused(result, f"{source}: model.yaml: its sha256 is not the one of --sha256")
    assert not target.exists()
    nothing_left(target)


def test_links_are_refused(source: Path, target: Path) -> None:
    (source / "shadow").symlink_to("/etc/shadow")
    refused(run("fetch", "--from", str(source), "--to", str(target)), "'shadow' is a link or a device")


def test_what_is_too_large_is_refused(source: Path, target: Path) -> None:
    arguments = ("fetch", "--from", str(source), "--to", str(target), "--max-bytes", "1000")
    refused(run(*arguments), "larger than the 1000 bytes of --max-bytes")
    assert not target.exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_target_that_is_no_folder(source: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    place.symlink_to(source) if kind == "link" else place.touch()
    refused(run("fetch", "--from", str(source), "--to", str(place)), f"--to: {place} is not a folder")


def test_a_source_that_is_not_there(tmp_path: Path, target: Path) -> None:
    refused(run("fetch", "--from", f"{tmp_path}/none", "--to", str(target)), f"{tmp_path}/none: no such file")


def test_leftovers_of_a_killed_one_go(source: Path, target: Path) -> None:
    stale, running = (target.parent / f".{target.name}.fetch-{name}" for name in ("stale", "running"))
    for path in (stale, running):
        path.mkdir(parents=True)
    os.utime(stale, (0, 0))
    assert run("fetch", "--from", str(source), "--to", str(target)).returncode == 0
    assert (stale.exists(), running.exists()) == (False, True)


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inside", "mode"), [(".", "w"), ("digits-1.0.0", "w"), (".", "w:gz"), ("x", "w:xz")])
def test_an_archive(archives: Archives, source: Path, target: Path, inside: str, mode: str) -> None:
    archives.archive = tar_of(source, inside, mode)
    result = run("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source))
    assert (result.returncode, result.stderr) == (0, "")
    assert package.contents(target) == package.contents(source)
    nothing_left(target)


def test_what_is_there_costs_no_download(archives: Archives, source: Path, target: Path) -> None:
    arguments = ("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source))
    assert run(*arguments).returncode == 0
    assert len(archives.asked) == 1
    assert '"already there"' in run(*arguments).stdout
    assert len(archives.asked) == 1
    (target / "weights.safetensors").write_bytes(b"rotten")
    assert run(*arguments).returncode == 0
    assert len(archives.asked) == 2
    assert package.contents(target) == package.contents(source)


@pytest.mark.parametrize("moods", [["busy"], ["break"], ["429", "break", "busy"]])
def test_what_passes_is_tried_again(archives: Archives, source: Path, target: Path, moods: list[str]) -> None:
    archives.moods = list(moods)
    result = run("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source))
    assert (result.returncode, result.stderr) == (0, "")
    assert len(archives.asked) == 1 + len(moods)
    assert result.stdout.count('"trying again"') == len(moods)
    assert package.contents(target) == package.contents(source)


def test_a_server_that_always_breaks_off(archives: Archives, source: Path, target: Path) -> None:
    archives.moods = ["break"] * 99
    result = run("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source))
    refused(result, "5 attempts")
    assert "broke off" in result.stderr
    assert not target.exists()
    nothing_left(target)


def test_a_refusal_is_final_and_shows_no_secret(archives: Archives, target: Path) -> None:
    archives.moods = ["403"] * 99
    address = f"{archives.url}/model.tar?signature=word"
    result = run("fetch", "--from", address, "--to", str(target), "--sha256", "0" * 64)
    refused(result, f"{archives.url}/model.tar: the server answered 403")
    assert len(archives.asked) == 1
    assert "word" not in result.stdout + result.stderr


def test_a_server_that_trickles_ends_in_time(archives: Archives, source: Path, target: Path) -> None:
    package.write(target, "0.9.0", b"old")
    before = package.contents(target)
    archives.moods = ["trickle"] * 99
    arguments = ("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source))
    result = run(*arguments, GENAI_FETCH_SECONDS="2")
    refused(result, f"{archives.url}/model.tar: not here within 2 s (GENAI_FETCH_SECONDS)")
    assert package.contents(target) == before
    nothing_left(target)


class Hops(Faulty):
    """Leads from `/1` to `leads[0]`, from `/2` to `leads[1]`; everything else is the archive."""

    def __init__(self, archive: bytes = b"") -> None:
        super().__init__(self._answer)
        self.archive, self.leads = archive, [""]

    def _answer(self, path: str, _: Mapping[str, str]) -> Answer:
        number = path.strip("/")
        return (302, {"Location": self.leads[int(number) - 1]}, b"") if number.isdigit() else (200, {}, self.archive)


@pytest.fixture
def hops(source: Path, tmp_path: Path) -> Iterator[tuple[Hops, Hops, dict[str, str]]]:
    """A server with a certificate, one without, and the variables by which the former is trusted."""
    safe, plain = Hops(tar_of(source)), Hops(tar_of(source))
    with serving(safe.secured(context(tmp_path / "server.pem"))), serving(plain):
        yield safe, plain, {"SSL_CERT_FILE": str(tmp_path / "server.pem")}


def test_no_hop_leads_to_http(hops: tuple[Hops, Hops, dict[str, str]], target: Path) -> None:
    safe, plain, trust = hops
    safe.leads, plain.leads = [f"{plain.url}/1", f"{plain.url}/model.tar"], [f"{safe.url}/model.tar"]
    for way in ("1", "2"):  # back to https, and not
        result = run("fetch", "--from", f"{safe.url}/{way}", "--to", str(target), **trust)
        refused(result, f"{safe.url}/{way}: it leads from https:// to http://")
    assert plain.asked == [], "nothing is asked there"
    assert not target.exists()


def test_other_hops_are_followed(hops: tuple[Hops, Hops, dict[str, str]], source: Path, target: Path) -> None:
    safe, plain, trust = hops
    safe.leads, plain.leads = ["/model.tar"], [f"{plain.url}/model.tar", f"{safe.url}/1"]
    assert run("fetch", "--from", f"{safe.url}/1", "--to", str(target), **trust).returncode == 0
    for way in ("1", "2"):
        pinned = ("--to", str(target.parent / way), "--sha256", pin(source))
        assert run("fetch", "--from", f"{plain.url}/{way}", *pinned, **trust).returncode == 0


@pytest.mark.parametrize(
    "lead",
    [
        "ftp://127.0.0.1:9/x",
        "file:///etc/passwd",
        "https://me:hunter@127.0.0.1:9/x",
        "gs://hunter/x",
        "https://[hunter",
        "http://x:hunter/",
    ],
)
def test_hops_to_anything_else_are_not(archives: Archives, target: Path, lead: str) -> None:
    server = Hops()
    server.leads = [lead]
    with serving(server):
        result = run("fetch", "--from", f"{server.url}/1", "--to", str(target), "--sha256", "0" * 64)
    refused(result, f"{server.url}/1: ")
    assert "hunter" not in result.stdout + result.stderr
    assert '"trying again"' not in result.stdout


def test_a_password_in_the_address_is_not_shown(target: Path) -> None:
    result = run("fetch", "--from", "https://me:hunter@127.0.0.1:9/model.tar", "--to", str(target))
    assert (result.returncode, "hunter" in result.stdout + result.stderr) == (3, False)
    assert result.stderr.startswith("genai-inference: --from: ")


HOSTILE = {
    "out of the folder": (tar_with("../../escaped"), "'../../escaped' is not a file's path inside of a package"),
    "absolute": (tar_with("/tmp/escaped"), "'/tmp/escaped' is not"),  # noqa: S108  # refused
    "link": (tar_with("model.yaml", tarfile.SYMTYPE, "/etc/passwd"), "'model.yaml' is a link or a device"),
    "hard link": (tar_with("model.yaml", tarfile.LNKTYPE, "/etc/passwd"), "'model.yaml' is a link or a device"),
    "device": (tar_with("model.yaml", tarfile.CHRTYPE), "'model.yaml' is a link or a device"),
    "no archive": (b"<html>" * 1000, "not a tar archive that can be read"),
    "cut off": (tar_with("model.yaml")[:300], "not a tar archive that can be read"),
    "empty": (b"", "not a tar archive that can be read"),
    "no package": (tar_with("notes.txt"), "model.yaml: no such file or directory"),
}


@pytest.mark.parametrize(("archive", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_archives_that_are_refused(archives: Archives, target: Path, archive: bytes, reason: str) -> None:
    archives.archive = archive
    result = run("fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", "0" * 64)
    refused(result, reason)
    assert not target.exists()
    nothing_left(target)
    assert not (target.parents[2] / "escaped").exists()


def test_told_to_end_it_leaves_nothing(archives: Archives, source: Path, target: Path) -> None:
    archives.moods = ["trickle"]
    command = ["fetch", "--from", f"{archives.url}/model.tar", "--to", str(target), "--sha256", pin(source)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-m", "genai_inference", *command], env=environment)
    eventually(lambda: len(archives.asked) == 1, "it fetches")
    time.sleep(0.2)  # the answer's head has come
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not target.exists()
    nothing_left(target)


@pytest.mark.parametrize("bad", [["--sha256", "abc"], ["--max-bytes", "many"]])
def test_bad_arguments_end_with_2(source: Path, target: Path, bad: list[str]) -> None:
    result = run("fetch", "--from", str(source), "--to", str(target), *bad)
    assert result.returncode == 2
    assert f"argument {bad[0]}" in result.stderr
