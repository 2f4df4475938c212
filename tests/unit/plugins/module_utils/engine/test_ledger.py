# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger across versions of this collection."""
from __future__ import annotations

import base64
import gzip
import json

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import ledger as _ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import FORMAT, Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.unlock import unlock
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.fleet.platform_lock import PlatformLock
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.upkeep.history import release_info
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from ansible_collections.genai.platform.plugins.module_utils.upkeep.verify import verify
from fake import FakeCluster
from story import STATE, config, deploy, kill_at, obj, releaser, roll_back, state, tear_down

BUNDLE = {"app": [obj("Namespace", "ns", None), config("one", a="1")]}


def rewrite(cluster, name, change):
    """Changes what a Secret of the ledger says, as another version of this collection would have written it."""
    data = cluster.objects[Ref("", "Secret", "genai-ledger", name)]["data"]
    payload = json.loads(gzip.decompress(base64.b64decode(data["payload"])))
    change(payload)
    data["payload"] = base64.b64encode(gzip.compress(json.dumps(payload).encode())).decode()


@pytest.fixture
def cluster():
    made = FakeCluster()
    deploy(made, BUNDLE)
    return made


def ledger(cluster):
    return Ledger(cluster, "genai-ledger", "genai")


def lock_nodes(cluster):
    with PlatformLock(cluster, ledger(cluster), "me").held():
        pass


EVERYBODY = {
    "release": lambda c: deploy(c, BUNDLE),
    "preview": lambda c: deploy(c, BUNDLE, check=True),
    "rollback": roll_back,
    "teardown": tear_down,
    "drift": lambda c: drift(releaser(c), False, None, []),
    "verify": lambda c: verify(c, ledger(c), None, 1.0, print),
    "unlock": lambda c: unlock(releaser(c)),
    "release_info": lambda c: release_info(c, ledger(c)),
}


@pytest.mark.parametrize("act", EVERYBODY.values(), ids=EVERYBODY)
def test_a_newer_format_is_one_sentence_whoever_reads_it(cluster, act, monkeypatch):
    monkeypatch.setattr(cluster, "version", lambda: "v1.31.0")
    rewrite(cluster, "genai.state", lambda payload: payload.update(format=FORMAT + 1, releases="of another shape"))
    writes = list(cluster.writes)
    with pytest.raises(InvalidInput, match=f"written in format {FORMAT + 1}, by a newer version of this collection, and this one reads up to {FORMAT}"):
        act(cluster)
    assert cluster.writes == writes


@pytest.mark.parametrize("act", [EVERYBODY["release"], lock_nodes], ids=["release", "gpu nodes"])
def test_so_is_a_newer_journal(cluster, act, monkeypatch):
    kill_at(cluster, monkeypatch, STATE, {"app": [BUNDLE["app"][0], config("one", a="2")]})
    rewrite(cluster, "genai.journal", lambda payload: payload.update(format=FORMAT + 1))
    with pytest.raises(InvalidInput, match="by a newer version of this collection"):
        act(cluster)


def test_the_first_format_did_not_say_so_and_is_read(cluster):
    rewrite(cluster, "genai.state", lambda payload: payload.pop("format"))
    assert state(cluster).current["number"] == 1
    assert deploy(cluster, BUNDLE)["changed"] is False


def test_a_journal_of_an_older_version_is_restored_from(cluster, monkeypatch):
    before = cluster.contents()
    kill_at(cluster, monkeypatch, STATE, {"app": [BUNDLE["app"][0], config("one", a="2"), config("two")]})

    def older(payload):
        payload.pop("format")
        for line in payload["entries"]:
            for field in ("uid", "one_way", "forced"):
                line.pop(field)

    rewrite(cluster, "genai.journal", older)
    assert deploy(cluster, BUNDLE)["repaired"] and cluster.contents() == before


@pytest.mark.parametrize(
    ("releases", "kept"),
    [
        ("d1 d2 d3 d4", "d2 d3 d4"),
        ("d1 " + " ".join(f"f{n}" for n in range(2, 14)), "d1 f11 f12 f13"),
        ("d1 f2 d3 f4 d5 f6 d7 f8", "d3 f4 d5 f6 d7 f8"),
        ("", ""),
    ],
)
def test_so_many_that_were_deployed_are_kept_and_as_many_that_failed(releases, kept):
    def made(text):
        return [{"number": int(item[1:]), "status": "deployed" if item[0] == "d" else "failed"} for item in text.split()]

    assert _ledger._kept(made(releases), 3) == made(kept)
