"""``[identity]``: how callers show who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from gateway.config.section import RandomSecret, Seconds, Section, Text
from gateway.http.outbound import Target, parse_authority, parse_target

HMAC_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Shortest secret of each algorithm in bytes: that of its hash (RFC 7518 §3.2)."""

Asymmetric = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signed with a private key, verified with a public one (RFC 7518 §3.1, RFC 8037; EdDSA is Ed25519)."""
Symmetric = Literal["HS256", "HS384", "HS512"]
"""Signed and verified with the same secret."""
AnyAlgorithm = Literal[Symmetric, Asymmetric]

_DAY = 86_400


class JwtKey(Section):
    """``[[identity.jwt]]``: one key that bearer tokens may be signed with, and the algorithms it is pinned to."""

    algorithms: Annotated[list[AnyAlgorithm], Field(min_length=1)]
    """The only values of a token's ``alg`` that this key verifies."""
    secret: SecretStr | None = None
    """For HS algorithms: the shared secret, at least as long as the hash (32, 48, 64 bytes)."""
    public_key_file: Path | None = None
    """For all others: PEM file with the public key, of the type that the algorithms need."""
    issuer: Text | None = None
    """Required value of ``iss``; not looked at when absent (REGARDS sets none)."""
    audience: Text | None = None
    """Required value of ``aud``; not looked at when absent."""

    @model_validator(mode="after")
    def _one_key_of_the_right_kind(self) -> Self:
        kinds = {algorithm[:2] for algorithm in self.algorithms}
        if kinds == {"HS"}:
            if self.secret is None or self.public_key_file is not None:
                raise ValueError("HS algorithms need 'secret' and no 'public_key_file'")
            if "replace-me" in self.secret.get_secret_value():
                raise ValueError("'secret' is the placeholder of the example, which everybody knows")
            length = len(self.secret.get_secret_value().encode())
            shortest = max(HMAC_SECRET_BYTES[algorithm] for algorithm in self.algorithms)
            if length < shortest:
                raise ValueError(
                    f"'secret' has {length} bytes; {', '.join(self.algorithms)} need at least {shortest} "
                    "(openssl rand -base64 48 makes a good one)"
                )
        elif "HS" in kinds:
            raise ValueError("'algorithms' mixes HS and others: give each its own [[identity.jwt]]")
        elif self.public_key_file is None or self.secret is not None:
            names = "/".join(sorted(kind if kind != "Ed" else "EdDSA" for kind in kinds))
            raise ValueError(f"{names} algorithms need 'public_key_file' and no 'secret'")
        return self


class ClaimNames(Section):
    """``[identity.issuers.claims]``: where an issuer's tokens say who the caller is.

    A name with dots leads into objects: ``realm_access.roles`` is ``roles`` of ``realm_access``, unless there is a
    claim of exactly this name.
    """

    tenant: Text = "tenant"
    """Tenant; not looked at when the issuer has a fixed one."""
    sub: Text = "sub"
    """Login, for logs."""
    email: Text = "email"
    """What quotas, licences and memberships are bound to."""
    role: Text = "role"
    """Role, or a list of roles."""
    groups: Text | None = None
    """List of access groups; when absent ``groups`` or REGARDS' ``accessGroups``."""


class Issuer(Section):
    """``[[identity.issuers]]``: an identity provider that publishes its keys."""

    issuer: Text
    """The exact value of ``iss``."""
    audience: Text | Literal[False]
    """Required value of ``aud``, or of one of its members. False: its tokens name none, and one that does is refused;
    whoever was shown a token by its user, for whatever service, can then show it here."""
    algorithms: Annotated[list[Asymmetric], Field(min_length=1)]
    """The only values of a token's ``alg`` that are accepted."""
    jwks_url: Text | None = None
    """Where its JWK Set (RFC 7517 §5) is; when absent, it is found by OpenID Connect Discovery."""
    hosts: list[Annotated[str, AfterValidator(parse_authority)]] = []  # noqa: RUF012 - pydantic copies it
    """Hosts (``host`` or ``host:port``) where discovery may say that the keys are; the issuer's own when empty."""
    ca_file: Path | None = None
    """Certificates (PEM) that its hosts are trusted by, at log-ins, too, instead of those of the system."""
    insecure_http: bool = False
    """Whether plain http to loopback addresses is allowed, for tests."""
    tenant: Text | None = None
    """The tenant of all its callers; when absent, their tokens name it."""
    default_role: Text | None = None
    """The role of a token that names none; when absent, such a token is refused."""
    role_prefix: Text | None = None
    """What names of roles must start with, and lose, to count; all others are passed over."""
    instance_admin: bool = False
    """Whether its tokens may give the role INSTANCE_ADMIN."""
    unverified_email: bool = False
    """Whether a token is good that says of its e-mail address that it is not verified (``email_verified``)."""
    claims: ClaimNames = ClaimNames()
    """Where its tokens say who the caller is."""
    grace: Annotated[float, Field(ge=0, le=7 * _DAY)] = 3600
    """Seconds that a key is still accepted after it vanished from the set."""
    max_stale: Annotated[float, Field(ge=0, le=7 * _DAY)] = 14_400
    """Seconds that the keys are still used after they should have been fetched anew and could not be; then 503."""
    cool_down: Annotated[float, Field(ge=1, le=3600)] = 30
    """Seconds between two attempts to fetch the keys, however many tokens name an unknown one."""
    timeout: Annotated[Seconds, Field(le=60)] = 5
    """Seconds that fetching the keys may take in all."""

    @field_validator("hosts")
    @classmethod
    def _hosts_differ(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("names a host twice")
        return value

    @model_validator(mode="after")
    def _urls_may_be_called(self) -> Self:
        if self.jwks_url is not None:
            self._target("jwks_url", self.jwks_url)
            if self.hosts:
                raise ValueError("'hosts' limits what discovery finds: leave it out where 'jwks_url' is given")
        elif self._target("issuer", self.issuer).has_query:
            raise ValueError("'issuer' must have no query, or 'jwks_url' must be given")
        return self

    @model_validator(mode="after")
    def _the_tenant_comes_from_one_place(self) -> Self:
        if self.tenant is not None and "tenant" in self.claims.model_fields_set:
            raise ValueError("'tenant' is fixed: leave 'tenant' of 'claims' out")
        return self

    def _target(self, name: str, url: str) -> Target:
        try:
            return parse_target(url, insecure_http=self.insecure_http)
        except ValueError as error:
            also = ", or 'jwks_url' must be given" if name == "issuer" else ""
            raise ValueError(f"'{name}' {error}{also}") from error


class Login(Section):
    """``[identity.login]``: browsers log in at an identity provider, and are known by a cookie from then on.

    It needs ``public_url`` of ``[api]``, where the identity provider sends them back to, with ``/login/callback``.
    """

    issuer: Text
    """Which of ``[[identity.issuers]]``; its endpoints are found by discovery."""
    client_id: Text
    """Our name there; what ID tokens are made for."""
    client_secret: SecretStr | None = None
    """What we prove it with; none for a public client. PKCE is used anyway."""
    secret: RandomSecret
    """Random text of at least 32 bytes, the same in all processes: it seals what a browser keeps during a log-in."""
    scopes: Annotated[list[Text], Field(min_length=1)] = ["openid", "email", "profile"]  # noqa: RUF012
    """What is asked for; ``openid`` is needed."""
    lifetime: Annotated[float, Field(ge=60, le=30 * _DAY)] = 28_800
    """Seconds that a session lasts."""
    timeout: Annotated[Seconds, Field(le=60)] = 10
    """Seconds that the identity provider may take."""

    @field_validator("scopes")
    @classmethod
    def _openid(cls, value: list[str]) -> list[str]:
        if "openid" not in value:
            raise ValueError("must hold 'openid', without which there is no ID token")
        return value


LONGEST_LINK_SECONDS = 7 * 86400


class Links(Section):
    """``[identity.links]``: signed download links."""

    secret: RandomSecret
    """What all signatures are derived from: at least 32 bytes. With another one all links end."""
    lifetime: Annotated[int, Field(ge=1, le=LONGEST_LINK_SECONDS)] = 86400
    """Seconds that a link works if its maker names no end."""
    max_lifetime: Annotated[int, Field(ge=1, le=LONGEST_LINK_SECONDS)] = LONGEST_LINK_SECONDS
    """Seconds that a link may work at most: a week or less."""

    @model_validator(mode="after")
    def _within_the_longest(self) -> Self:
        if self.lifetime > self.max_lifetime:
            raise ValueError("'lifetime' is more than 'max_lifetime'")
        return self


class ApiKeys(Section):
    """``[identity.api_keys]``: keys that users make for their programs."""

    max_lifetime: Annotated[int, Field(ge=60, le=3650 * _DAY)] | None = None
    """Seconds after which a key ends at the latest, and with it what its maker's token said of role and groups; keys
    that were made before the setting, too. Absent, a key works until it is revoked, or ends as its maker wanted."""


class Identity(Section):
    """``[identity]``: how callers show who they are."""

    jwt: list[JwtKey] = []  # noqa: RUF012 - pydantic copies it
    """Keys of bearer tokens; the first that fits a token's ``iss`` and ``alg`` and verifies it is taken."""
    issuers: list[Issuer] = []  # noqa: RUF012
    """Identity providers whose keys are fetched; each has all tokens with its ``iss`` to itself."""
    login: Login | None = None
    """How browsers log in; absent, they do not."""
    api_keys: ApiKeys = ApiKeys()
    """API keys."""
    links: Links | None = None
    """Signed download links; there are none without this table."""
    leeway: Annotated[float, Field(ge=0, le=60)] = 10
    """Seconds that the clocks of token issuers may differ from ours."""

    @model_validator(mode="after")
    def _each_issuer_has_one_place(self) -> Self:
        if not self.jwt and not self.issuers:
            raise ValueError(
                "give a key of your tokens as an [[identity.jwt]], or their issuer as an [[identity.issuers]]"
            )
        seen = {key.issuer for key in self.jwt}
        for issuer in self.issuers:
            if issuer.issuer in seen:
                raise ValueError(f"issuer {issuer.issuer!r} is in more than one table")
            seen.add(issuer.issuer)
        return self

    @model_validator(mode="after")
    def _log_ins_have_an_issuer_that_can_be_asked(self) -> Self:
        if self.login is None:
            return self
        issuer = next((one for one in self.issuers if one.issuer == self.login.issuer), None)
        if issuer is None:
            raise ValueError("'issuer' of 'login' is none of [[identity.issuers]]")
        try:
            parse_target(issuer.issuer, insecure_http=issuer.insecure_http)
        except ValueError as error:
            raise ValueError(f"'issuer' of 'login' {error}: its endpoints are found by discovery") from error
        return self
