"""Who may call: whoever has a key of the file, or a token of the issuer. Where neither is configured, everybody."""

from .api_keys import KeyFile, client_of
from .oidc import Refused, Tokens, WrongKey, looks_like_a_token

PROTECTED = "/v1/"  # the paths that only clients may ask for


class Admission:
    """Finds out which client presents a key or a token."""

    def __init__(self, keys: KeyFile | None, tokens: Tokens | None) -> None:
        self._keys = keys
        self._tokens = tokens
        self.is_open = keys is None and tokens is None

    def look(self) -> None:
        """Notices a change of the file, though nobody presents a key: `/ready` tells of its faults."""
        if self._keys is not None:
            _ = self._keys.keys

    def known(self, presented: bytes | None) -> str | None:
        """Whose key this is, or whose token that was verified before. Takes microseconds, also for a wrong one."""
        if not presented:
            return None
        if self._tokens is not None and self._may_be_token(presented):
            return self._tokens.known(presented)
        return client_of(self._keys.keys, presented) if self._keys is not None else None

    async def client_of(self, presented: bytes | None) -> str:
        """Whose key or token this is; Refused if it is nobody's."""
        if not presented:
            needed, word = ("A token", "TOKEN") if self._keys is None else ("An API key", "KEY")
            raise Refused(f"{needed} is needed: Authorization: Bearer {word}.", challenge="Bearer")
        client = self.known(presented)
        if client is not None:
            return client
        if self._tokens is not None and self._may_be_token(presented):
            return await self._tokens.client_of(presented)
        raise WrongKey("This API key is not known.", challenge="Bearer")

    def _may_be_token(self, presented: bytes) -> bool:
        return self._keys is None or looks_like_a_token(presented)
