"""Who may call, by tokens: real ones, of a real issuer, which goes away and changes its keys."""

import base64
import hashlib
import hmac
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checks import check
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from issuer import AUDIENCE, MAKERS, Issuer, listening
from stub import digit, loaded
from waiting import eventually

from genai_inference import middleware, oidc
from genai_inference.api import create_app
from genai_inference.model import WORD
from genai_inference.oidc import find, keys_of, looks_like_a_token, name_of, scopes_of
from genai_inference.settings import Settings, is_safe

ONE = {"instances": [digit(1)]}
INVALID = 'Bearer error="invalid_token"'


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with listening() as issuer:
        yield issuer


@contextmanager
def serving(issuer: Issuer, **settings: object) -> Iterator[TestClient]:
    """A client of a service that takes the issuer's tokens. Any exception that gets out of it fails the test."""
    wanted = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, **settings}
    with TestClient(create_app(Settings(**wanted), lambda _: loaded())) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


@pytest.fixture
def client(issuer: Issuer) -> Iterator[TestClient]:
    with serving(issuer) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def predict(client: TestClient, token: str) -> int:
    return client.post("/v1/predict", json=ONE, headers=bearer(token)).status_code


def degraded(client: TestClient) -> dict[str, str]:
    return client.get("/ready").json().get("degraded", {})


@pytest.mark.parametrize("algorithm", MAKERS)
def test_a_good_token_opens(issuer: Issuer, algorithm: str) -> None:
    issuer.rotate("another", algorithm)
    with serving(issuer) as client:
        assert predict(client, issuer.token("another")) == 200
        assert predict(client, issuer.token("another", aud=["other", AUDIENCE])) == 200
        assert client.get("/v1/models", headers=bearer(issuer.token("another"))).status_code == 200


def test_the_keys_are_fetched_once_and_a_token_is_verified_once(
    client: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    assert predict(client, token) == 200
    monkeypatch.setattr(oidc.jwt, "decode", None)  # whoever verified it again would fail
    assert {predict(client, token) for _ in range(5)} == {200}
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_the_cache_of_good_tokens_is_bounded(
    client: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "MOST_VERIFIED", 3)
    tokens = [issuer.token(sub=f"client{number}") for number in range(5)]
    assert {predict(client, token) for token in tokens} == {200}
    assert len(client.app.state.service.tokens._verified) == 3  # type: ignore[attr-defined]


def test_keys_can_be_elsewhere(issuer: Issuer) -> None:
    with serving(issuer, oidc_jwks_url=f"{issuer.url}/elsewhere") as client:
        assert predict(client, issuer.token()) == 200
    assert issuer.asked == ["/elsewhere"]


def _part(part: object) -> str:
    return base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).decode().rstrip("=")


def _tampered(issuer: Issuer) -> str:
    header, payload, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{_part({**claims, 'sub': 'admin'})}.{signature}"


def _unsigned(issuer: Issuer) -> str:
    return f"{_part({'alg': 'none', 'typ': 'JWT', 'kid': 'first'})}.{issuer.token().split('.')[1]}."


def _hs256(issuer: Issuer, kid: str = "first") -> str:
    """Signed with what everybody knows: the public key."""
    public = issuer.keys["first"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_part({'alg': 'HS256', 'kid': kid})}.{issuer.token().split('.')[1]}"
    secret = b"secret" if kid == "shared" else public
    return f"{signed}.{_part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _of_another(issuer: Issuer) -> str:
    """By somebody else's key of the same name."""
    other = Issuer()
    other.rotate("first")
    return other.token(iss=issuer.url)


NOW = int(time.time())
BAD = {
    "expired": (lambda i: i.token(exp=NOW - 3600), "has expired"),
    "not yet valid": (lambda i: i.token(nbf=NOW + 3600), "is not valid yet"),
    "another issuer": (lambda i: i.token(iss="https://elsewhere.test"), "another issuer"),
    "another audience": (lambda i: i.token(aud="other"), "another audience"),
    "no audience": (lambda i: i.token(aud=None), "lacks one of"),
    "no end": (lambda i: i.token(exp=None), "lacks one of"),
    "no subject": (lambda i: i.token(sub=None), "lacks one of"),
    "an end that is none": (lambda i: i.token(exp=float("inf")), "not a token"),
    "not signed": (_unsigned, "must be signed with"),
    "HS256 with the public key": (_hs256, "must be signed with"),
    "HS256 with a secret that is published": (lambda i: _hs256(i, "shared"), "must be signed with"),
    "tampered with": (_tampered, "signature of the token is wrong"),
    "somebody else's key": (_of_another, "signature of the token is wrong"),
    "an unknown key": (lambda i: i.token(header={"kid": "none"}), "does not publish"),
    "a key that is no name": (lambda i: f"{_part({'alg': 'RS256', 'kid': [1]})}.e30.e30", "not a token"),
    "an algorithm that is none": (lambda i: f"{_part({'alg': ['RS256'], 'kid': 'first'})}.e30.e30", ""),
    "a header that is no object": (lambda i: f"{_part([1])}.e30.e30", "not a token"),
    "a header without bottom": (lambda i: f"{_part(b'{' + b'[' * 12000)}.e30.e30", "not a token"),
    "too long": (lambda i: i.token(jti="x" * oidc.MOST_TOKEN_BYTES), "not a token"),
    "cut off": (lambda i: i.token()[:-42], "signature of the token is wrong"),
    "no token at all": (lambda i: "a-word", "not a token"),
}


@pytest.mark.parametrize(("make", "detail"), BAD.values(), ids=BAD)
def test_nothing_else_does(client: TestClient, issuer: Issuer, make: object, detail: str) -> None:
    token = make(issuer)  # type: ignore[operator]
    answer = client.post("/v1/predict", json=ONE, headers=bearer(token))
    check(answer, 401, detail)
    assert answer.headers["www-authenticate"] == INVALID
    assert not any(part in answer.text for part in token.split(".") if len(part) > 5)


def test_forged_tokens_are_limited_and_others_are_not(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "WRONG_PER_SECOND", 1e-9)
    good, expired, forged = issuer.token(), issuer.token(exp=NOW - 3600), _of_another(issuer)
    with serving(issuer) as client:
        assert predict(client, good) == 200  # the keys are there
        assert {predict(client, forged) for _ in range(middleware.WRONG_BURST)} == {401}
        # Whoever hears 401 for an expired one gets another.
        assert (predict(client, forged), predict(client, expired), predict(client, good)) == (429, 401, 200)


def test_without_a_token(client: TestClient) -> None:
    answer = client.post("/v1/predict", json=ONE)
    check(answer, 401, "A token is needed")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/version").status_code == 200


def test_a_token_counts_no_longer_than_it_says(
    client: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "LEEWAY_SECONDS", 0)
    token = issuer.token(exp=int(time.time()) + 3)
    assert predict(client, token) == 200
    eventually(lambda: predict(client, token) == 401, "refused, though it was verified")


def test_new_keys_are_found_and_old_ones_forgotten(
    client: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.1)
    old = issuer.token()
    assert predict(client, old) == 200
    issuer.rotate("second", "ES256")
    eventually(lambda: predict(client, issuer.token("second")) == 200, "a token of the new key opens")
    assert predict(client, old) == 200
    del issuer.keys["first"]
    issuer.rotate("third")
    eventually(lambda: predict(client, issuer.token("third")) == 200, "a token of the newest key opens")
    assert predict(client, old) == 401


def test_keys_are_fetched_again_though_nobody_calls(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first to call after a quiet night could use a key that was withdrawn."""
    monkeypatch.setattr(oidc, "FRESH_SECONDS", 0.1)
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.05)
    with serving(issuer) as client:
        token = issuer.token()
        assert predict(client, token) == 200
        issuer.rotate("second")
        del issuer.keys["first"]
        asked = issuer.asked.count("/keys")
        eventually(lambda: issuer.asked.count("/keys") > asked + 1, "fetched again")
        assert predict(client, token) == 401


def test_tokens_of_unknown_keys_do_not_make_it_ask_again_and_again(client: TestClient, issuer: Issuer) -> None:
    assert predict(client, issuer.token()) == 200
    assert {predict(client, issuer.token(header={"kid": f"none{n}"})) for n in range(20)} == {401}
    assert issuer.asked.count("/keys") <= 2


def test_an_issuer_that_is_away_at_the_start(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.1)
    issuer.stop()
    with serving(issuer) as client:
        answer = client.post("/v1/predict", json=ONE, headers=bearer(issuer.token()))
        check(answer, 401, "could not be fetched yet")
        eventually(lambda: "oidc" in degraded(client), "degraded")
        issuer.start()
        eventually(lambda: not degraded(client), "well again, though nobody calls")
        assert predict(client, issuer.token()) == 200


def test_an_issuer_that_goes_away_later(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.1)
    monkeypatch.setattr(oidc, "FRESH_SECONDS", 0.0)
    with serving(issuer) as client:
        assert predict(client, issuer.token()) == 200
        issuer.stop()
        eventually(lambda: bool(predict(client, issuer.token(jti="another")) == 200 and degraded(client)), "degraded")
        assert predict(client, issuer.token(jti="a third")) == 200
        assert predict(client, issuer.token(header={"kid": "none"})) == 401


def test_an_issuer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 0.3)
    issuer = Issuer()
    issuer.rotate("first")
    with socket.create_server(("127.0.0.1", issuer.port)), serving(issuer) as client:
        assert predict(client, issuer.token()) == 401
        eventually(lambda: "timed out" in degraded(client).get("oidc", ""), "degraded")


@pytest.mark.parametrize("trusted", [True, False])
def test_an_issuer_with_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    certificate = tmp_path / "issuer.pem"
    issuer = Issuer(certificate)
    issuer.rotate("first")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    issuer.start()
    with serving(issuer) as client:
        assert predict(client, issuer.token()) == (200 if trusted else 401)
        assert trusted or "certificate verify failed" in degraded(client)["oidc"].lower()
    issuer.stop()


def test_no_redirect_is_followed(issuer: Issuer) -> None:
    issuer.elsewhere = f"{issuer.url}/elsewhere"
    with serving(issuer) as client:
        assert predict(client, issuer.token()) == 401
    assert "/elsewhere" not in issuer.asked


RUBBISH = {
    "nothing": b"",
    "no object": b"[]",
    "no keys": b'{"keys": []}',
    "keys of no kind": b'{"keys": [1, {}, {"kty": "RSA", "n": 3}]}',
    "too much": b" " * (oidc.MOST_BYTES + 1),
    "another issuer": b'{"issuer": "https://elsewhere.test", "jwks_uri": "https://elsewhere.test"}',
}


@pytest.mark.parametrize("document", RUBBISH.values(), ids=RUBBISH)
def test_an_issuer_that_answers_rubbish(issuer: Issuer, document: bytes) -> None:
    issuer.answer = document
    with serving(issuer) as client:
        assert predict(client, issuer.token()) == 401
        eventually(lambda: "oidc" in degraded(client), "degraded")


def test_a_scope_that_is_needed(issuer: Issuer) -> None:
    with serving(issuer, oidc_scope="predict") as client:
        assert predict(client, issuer.token(scope="openid predict")) == 200
        answer = client.post("/v1/predict", json=ONE, headers=bearer(issuer.token(scope="openid")))
        check(answer, 403, "scope predict")
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="predict"'


def test_keys_and_tokens_side_by_side(issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(f"shop {hashlib.sha256(b'a.long.word').hexdigest()}\n")
    caplog.set_level(logging.INFO)
    with serving(issuer, api_keys_file=file) as client:
        token = issuer.token()
        assert (predict(client, "a.long.word"), predict(client, token)) == (200, 200)
        check(client.post("/v1/predict", json=ONE, headers=bearer("another")), 401, "API key is not known")
        check(client.post("/v1/predict", json=ONE, headers=bearer(token[:-42])), 401, "signature")
    by_key, by_token, *_ = (r.fields["client"] for r in caplog.records if "client" in getattr(r, "fields", {}))
    assert (by_key, by_token) == ("shop", name_of("shop", marked=True)), "no subject passes for a key's client"
    assert token not in caplog.text


# {issuer: (header, claims)} beside what all have. Keycloak before 25 puts a nonce into every token; Dex makes access
# tokens as it makes ID tokens, with the hash of a token that nobody has; Kubernetes' are for workloads.
HASH = {"at_hash": "x"}
ACCESS = {
    "RFC 9068": ({"typ": "at+jwt"}, {"client_id": "spa", "jti": "1"}),
    "RFC 9068, in full": ({"typ": "application/at+JWT"}, {"nonce": "n"}),
    "Okta": ({"typ": "application/okta-internal-at+jwt"}, {"cid": "spa", "scp": ["read"]}),
    "Keycloak": ({"typ": "JWT"}, {"typ": "Bearer", "azp": "spa", "scope": "openid"}),
    "Keycloak before 25": ({"typ": "JWT"}, {"typ": "Bearer", "azp": "spa", "nonce": "n"}),
    "Entra ID, a user": ({"typ": "JWT"}, {"azp": "spa", "scp": "read", "ver": "2.0", "tid": "t"}),
    "Entra ID, an application": ({"typ": "JWT"}, {"azp": AUDIENCE, "roles": ["worker"], "ver": "2.0"}),
    "Entra ID, version 1": ({"typ": "JWT"}, {"appid": "spa", "scp": "read", "ver": "1.0"}),
    "Auth0": ({"typ": "JWT"}, {"azp": "spa", "scope": "openid read", "gty": "password"}),
    "Auth0, no scope": ({"typ": "JWT"}, {"azp": "spa", "gty": "client-credentials"}),
    "Dex": ({"typ": None}, HASH),
    "Dex, with a nonce": ({"typ": None}, {**HASH, "nonce": "n", "email": "a@b.test"}),
    "Dex, of another client": ({"typ": None}, {**HASH, "aud": [AUDIENCE, "spa"], "azp": "spa"}),
    "Cognito": ({"typ": None}, {"token_use": "access", "client_id": "spa"}),
    "Kubernetes": ({"typ": None}, {"kubernetes.io": {"namespace": "shop"}, "jti": "1"}),
    "SPIFFE": ({"typ": "JOSE"}, {}),
}
OTHERS = {
    "Keycloak's ID token": ({"typ": "JWT"}, {"typ": "ID", "azp": AUDIENCE, **HASH}),
    "Keycloak's refresh token": ({"typ": "JWT"}, {"typ": "Refresh", "azp": AUDIENCE, "scope": "openid"}),
    "Keycloak's logout token": ({"typ": "JWT"}, {"typ": "Logout", "events": {}}),
    "Cognito's ID token": ({"typ": None}, {"token_use": "id", **HASH}),
    "Entra's ID token": ({"typ": "JWT"}, {"nonce": "n", "ver": "2.0", "tid": "t"}),
    "Entra's ID token, hybrid": ({"typ": "JWT"}, {"nonce": "n", "c_hash": "x", **HASH}),
    "Auth0's ID token": ({"typ": "JWT"}, {"nonce": "n", "sid": "1"}),
    "a logout token": ({"typ": "logout+jwt"}, {"events": {}, "sid": "1"}),
    "a proof of possession": ({"typ": "dpop+jwt"}, {}),
    "a type that is none": ({"typ": ["at+jwt"]}, {}),
}


@pytest.mark.parametrize(("header", "claims"), ACCESS.values(), ids=ACCESS)
def test_access_tokens_open(client: TestClient, issuer: Issuer, header: dict[str, Any], claims: dict[str, Any]) -> None:
    assert predict(client, issuer.token(header=header, **claims)) == 200


@pytest.mark.parametrize(("header", "claims"), OTHERS.values(), ids=OTHERS)
def test_tokens_for_something_else_do_not(
    client: TestClient, issuer: Issuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    answer = client.get("/v1/models", headers=bearer(issuer.token(header=header, **claims)))
    check(answer, 401, "This is not an access token")
    assert answer.headers["www-authenticate"] == INVALID


def test_a_scope_settles_what_dex_leaves_in_doubt(issuer: Issuer) -> None:
    """An ID token with the hash of an access token looks like Dex's access tokens, but no ID token has a scope."""
    token = issuer.token(azp=AUDIENCE, nonce="n", at_hash="x")
    with serving(issuer, oidc_scope="predict") as client:
        assert predict(client, token) == 403


SUBJECTS = {
    "shop": "shop",
    "6f0e0c3e-1d2b-4c5d-8e9f-000000000000": "6f0e0c3e-1d2b-4c5d-8e9f-000000000000",
    "system:serviceaccount:shop:api": "system.serviceaccount.shop.api-",
    'a"b\n{}': "a.b-",
    "x" * 64: "x" * 50 + "-",
    "": "sub-",
    "шоп": "sub-",
}


@pytest.mark.parametrize(("subject", "start"), SUBJECTS.items(), ids=range(len(SUBJECTS)))
def test_a_subject_becomes_a_word(subject: str, start: str) -> None:
    for marked in (False, True):
        name = name_of(subject, marked)
        assert re.fullmatch(WORD, name) and name.startswith(start)
    assert name_of(subject, marked=False) != name_of(subject + ":", marked=False)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scp": "a"}, {"a"}),
        ({"scope": 5}, set()),
    ],
)
def test_scopes(claims: dict[str, object], scopes: set[str]) -> None:
    assert scopes_of(claims) == scopes


def test_keys_for_something_else_are_left_out() -> None:
    issuer = Issuer()
    issuer.rotate("rsa")
    issuer.rotate("ec", "ES256")
    private = json.loads(oidc.jwt.algorithms.RSAAlgorithm.to_jwk(issuer.keys["rsa"][1]))
    others = [
        {**issuer.jwk("rsa"), "kid": "enc", "use": "enc"},
        {**private, "kid": "private"},
        {"kty": "oct", "k": "YQ"},
    ]
    pinned = {**issuer.jwk("rsa"), "kid": "pinned", "alg": "PS256"}
    keys = keys_of(json.dumps({"keys": [issuer.jwk("rsa"), issuer.jwk("ec"), pinned, *others]}).encode())
    assert {(key.kid, key.algorithm) for key in keys} == {
        ("rsa", "RS256"),
        ("rsa", "PS256"),
        ("pinned", "PS256"),
        ("ec", "ES256"),
    }
    assert find(keys, None, "ES256") == find(keys, "ec", "ES256") is not None
    assert find(keys, None, "PS256") is None, "there are two"
    assert find(keys, "ec", "RS256") is None


@pytest.mark.parametrize(
    ("presented", "is_one"),
    [("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", True), ("eyJhbGciOiJub25lIn0.e30.", True), ("a.long.word", False), ("e", False)],
)
def test_what_looks_like_a_token(presented: str, is_one: bool) -> None:
    assert looks_like_a_token(presented.encode()) is is_one


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://issuer.test/realm", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("http://keycloak.iam.svc/realms/x", True),
        ("http://keycloak.iam.svc.cluster.local", True),
        ("http://issuer.test", False),
        ("http://svc", False),
        ("http://localhost.evil.test", False),
        ("http://127.0.0.1@evil.test", False),
        ("https://me:word@issuer.test", False),
        ("https://issuer.test:port", False),
        ("ftp://issuer.test", False),
        ("https://", False),
        ("https://[", False),
    ],
)
def test_where_keys_may_come_from(url: str, safe: bool) -> None:
    assert is_safe(url) is safe
