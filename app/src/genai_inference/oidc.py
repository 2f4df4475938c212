"""OpenID Connect: who may call, by tokens that an issuer signed.

A token is verified here, with the issuer's public keys; the issuer hears of no request. Its keys are fetched when the
service starts, again when a token names one that is not known, and once an hour. While the issuer is away, the keys
that were fetched last go on counting, and `/ready` says `degraded`.
"""

import asyncio
import hashlib
import json
import logging
import re
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

from .lifecycle import Lifecycle
from .model import WORD
from .settings import Settings, is_safe

log = logging.getLogger(__name__)

# Signatures by a private key only: with `none` or HS256, whoever reads the public keys could make tokens.
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
LEEWAY_SECONDS = 30  # clocks differ
FRESH_SECONDS = 3600.0
# At most one fetch in this time, however many tokens name unknown keys.
REFETCH_SECONDS = 5.0
FETCH_SECONDS = 5.0
MOST_BYTES = 2**20
MOST_VERIFIED = 4096
MOST_TOKEN_BYTES = 2**14  # a longer one costs the event loop time before its signature is looked at
WELL_KNOWN = "/.well-known/openid-configuration"
UNKNOWN_KEY = "The token is signed with a key that its issuer does not publish."
NOT_FOR_ACCESS = "This is not an access token: it was made for the client that got it, or for another use."
NO_KEYS = "The token cannot be verified: its issuer's keys could not be fetched yet. Try again later."
NOT_A_TOKEN = "This is not a token that can be verified."  # noqa: S105

ACCESS_TYPES = ("at+jwt", "okta-internal-at+jwt")
PLAIN_TYPES = ("jwt", "jose")
ACCESS_CLAIMS = {"typ": "bearer", "token_use": "access"}

# Three parts of base64url, of which the first begins a JSON object.
_LIKE_A_TOKEN = re.compile(rb"e[wy][\w-]*\.[\w-]+\.[\w-]*")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class Refused(Exception):  # an answer, not an accident
    """A token that does not open: 401, or 403 if it is good but not for this. The message repeats nothing of it."""

    def __init__(self, detail: str, status: int = 401, challenge: str = 'Bearer error="invalid_token"') -> None:
        super().__init__(detail)
        self.status = status
        self.challenge = challenge


class WrongKey(Refused):
    """A key that nobody has, or a token that the issuer did not sign. One that has expired is none of these: its client
    is to hear so each time, and gets another.
    """


# The first that fits.
DETAILS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "The token has expired."),
    (jwt.ImmatureSignatureError, "The token is not valid yet."),
    (jwt.InvalidAudienceError, "The token is for another audience."),
    (jwt.InvalidIssuerError, "The token is of another issuer."),
    (jwt.InvalidSignatureError, "The signature of the token is wrong."),
    (jwt.MissingRequiredClaimError, "The token lacks one of: aud, exp, iss, sub."),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of the issuer, for one algorithm."""

    kid: str | None
    algorithm: str
    key: Any  # of the library `cryptography`


def keys_of(document: bytes) -> tuple[Key, ...]:
    """What of a JWKS can verify a signature. Keys for other uses, or of an unknown kind, are left out; ValueError if
    there is none.
    """
    published = _object(document).get("keys", ())
    keys = [_key(jwk, algorithm) for jwk in published if isinstance(jwk, dict) for algorithm in ALGORITHMS]
    if not any(keys):
        raise ValueError("no key in it that can verify a token")
    return tuple(key for key in keys if key is not None)


def _key(jwk: dict[str, Any], algorithm: str) -> Key | None:
    """The key, if it is one for this algorithm."""
    # Who finds a private key there can make tokens himself, so it proves nothing.
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm or "d" in jwk:
        return None
    try:
        return Key(jwk.get("kid"), algorithm, jwt.PyJWK(jwk, algorithm).key)
    except (jwt.PyJWTError, ValueError, TypeError):  # of another kind, or damaged
        return None


def find(keys: tuple[Key, ...], kid: str | None, algorithm: str) -> Key | None:
    """The key of a token; one without a `kid` is the only one of its kind."""
    found = [key for key in keys if key.algorithm == algorithm and kid in (None, key.kid)]
    return found[0] if len(found) == 1 else None


def looks_like_a_token(presented: bytes) -> bool:
    """Whether a bearer's word is a JWT, and not an API key."""
    return _LIKE_A_TOKEN.fullmatch(presented) is not None


def name_of(subject: str, marked: bool) -> str:
    """A client's name for logs: its `sub` if that is a word; else, or if `marked`, what of it is fit, and a hash."""
    if re.fullmatch(WORD, subject) and not marked:
        return subject
    fit = _UNFIT.sub(".", subject).strip("._-")[:50] or "sub"
    return f"{fit}-{hashlib.sha256(subject.encode()).hexdigest()[:12]}"


def scopes_of(claims: dict[str, Any]) -> set[str]:
    """`scope` as in RFC 9068, words in one string; or `scp`, as some issuers call it, maybe as a list."""
    found = claims.get("scope") or claims.get("scp") or ""
    return set(found.split() if isinstance(found, str) else map(str, found) if isinstance(found, list) else ())


def is_access_token(header: dict[str, Any], claims: dict[str, Any]) -> bool:
    """Whether a good token was made for an API, and not to tell its client who signed in (an ID token), or who left.

    Where the audience is a client's id, nothing but this tells the two apart. The token's own word counts first: `typ`
    of the header (RFC 9068), `typ` of Keycloak's claims, `token_use` of Cognito's. Without one, a scope makes it an
    access token, and a nonce or the hash of a code an ID token. `at_hash` proves nothing: Dex puts one, and the nonce,
    into its access tokens, too. `azp`, which both kinds have, says who asked for the token.
    """
    kind = str(header.get("typ") or "JWT").lower().removeprefix("application/")
    if kind in ACCESS_TYPES:
        return True
    if kind not in PLAIN_TYPES:
        return False
    for claim, access in ACCESS_CLAIMS.items():
        if claim in claims:
            return str(claims[claim]).lower() == access
    return bool(scopes_of(claims)) or not ("c_hash" in claims or ("nonce" in claims and "at_hash" not in claims))


class Tokens:
    """Verifies tokens. All of it belongs to the event loop; only the fetching is done beside it."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, clock: Callable[[], float] = time.monotonic) -> None:
        """`settings` with an `oidc_issuer`."""
        self._issuer, self._audience = settings.oidc_issuer or "", settings.oidc_audience
        self._jwks_url, self._scope = settings.oidc_jwks_url, settings.oidc_scope
        # Where API keys have clients of their own, no subject may pass for one of those.
        self._marked = settings.api_keys_file is not None
        self._lifecycle = lifecycle
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._asked_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._next: asyncio.TimerHandle | None = None
        # {SHA-256 of a token that was good: (its client, when it expires)}
        self._verified: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def known(self, token: bytes) -> str | None:
        """The name of the client whose token this is, if it was verified before and has not expired."""
        digest = hashlib.sha256(token).digest()
        client, expires = self._verified.get(digest, ("", 0.0))
        if time.time() >= expires + LEEWAY_SECONDS:
            return None
        self._verified.move_to_end(digest)
        return client

    async def client_of(self, token: bytes) -> str:
        """The name of the client whose token this is, once that is verified; Refused if it is not good."""
        claims = await self._verify(token)
        client = name_of(str(claims["sub"]), self._marked)
        self._verified[hashlib.sha256(token).digest()] = client, float(claims["exp"])
        if len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)
        return client

    async def _verify(self, token: bytes) -> dict[str, Any]:
        if len(token) > MOST_TOKEN_BYTES:
            raise WrongKey(NOT_A_TOKEN)
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm = header.get("kid"), header["alg"]
        except Exception:  # whatever strangers write there, it is their mistake and none of ours
            raise WrongKey(NOT_A_TOKEN) from None
        if algorithm not in ALGORITHMS:
            raise WrongKey(f"The token must be signed with one of: {', '.join(ALGORITHMS)}.")
        key = find(self._keys, kid, algorithm)
        if key is None:
            await self._refreshed()
            key = find(self._keys, kid, algorithm)
        if key is None:
            raise Refused(UNKNOWN_KEY if self._keys else NO_KEYS)
        claims = self._claims(token, key)
        if not is_access_token(header, claims):
            raise Refused(NOT_FOR_ACCESS)
        if self._scope is not None and self._scope not in scopes_of(claims):
            challenge = f'Bearer error="insufficient_scope", scope="{self._scope}"'
            raise Refused(f"The token does not have the scope {self._scope}.", 403, challenge)
        return claims

    def _claims(self, token: bytes, key: Key) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iss", "sub"]},
            )
        except Exception as error:  # as above
            detail = next((say for kind, say in DETAILS if isinstance(error, kind)), NOT_A_TOKEN)
            raise (WrongKey if isinstance(error, jwt.InvalidSignatureError) else Refused)(detail) from None
        return claims

    def refresh(self) -> None:
        """Begins to fetch the keys, unless that is being done, or was done just now."""
        if self._fetching is None and self._clock() - self._asked_at >= REFETCH_SECONDS:
            self._asked_at = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _refreshed(self) -> None:
        self.refresh()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # others wait for it too

    async def _fetch(self) -> None:
        try:
            document = await asyncio.wait_for(asyncio.to_thread(self._document), 2 * FETCH_SECONDS)
            keys = keys_of(document)
        except Exception as error:  # of the network or of what came; nobody but the log and /ready would hear of it
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if "oidc" not in self._lifecycle.degraded:  # said once, not for each try
                log.warning("keys of the issuer not fetched", extra={"fields": {"reason": reason}})
            self._lifecycle.degrade("oidc", reason)
            self._refresh_in(REFETCH_SECONDS)
        else:
            self._take(keys)
            self._refresh_in(max(REFETCH_SECONDS, FRESH_SECONDS))
        finally:
            self._fetching = None

    def _refresh_in(self, seconds: float) -> None:
        """Has the keys fetched then, whether anybody calls or not."""
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(seconds, self.refresh)

    def _take(self, keys: tuple[Key, ...]) -> None:
        if {(key.kid, key.algorithm) for key in keys} != {(key.kid, key.algorithm) for key in self._keys}:
            log.info("keys of the issuer fetched", extra={"fields": {"keys": len({key.kid for key in keys})}})
        # A key that was withdrawn opens nothing any more, nor does what it had signed.
        self._verified.clear()
        self._keys = keys
        self._lifecycle.degrade("oidc", None)

    def _document(self) -> bytes:
        """The JWKS; OSError or ValueError. Runs beside the event loop."""
        url = self._jwks_url
        if url is None:
            configuration = _object(_get(self._issuer.rstrip("/") + WELL_KNOWN))
            if configuration.get("issuer") != self._issuer:
                raise ValueError("the issuer's configuration names another issuer than GENAI_OIDC_ISSUER")
            url = str(configuration.get("jwks_uri"))
            if not is_safe(url):
                raise ValueError("jwks_uri of the issuer's configuration is no https:// URL")
        return _get(url)


def _object(document: bytes) -> dict[str, Any]:
    found = json.loads(document)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: they could lead from https to http."""

    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        return None


def _get(url: str) -> bytes:
    with urllib.request.build_opener(_Straight).open(url, timeout=FETCH_SECONDS) as response:
        body: bytes = response.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return body
