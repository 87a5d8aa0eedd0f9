"""Every wrong setting is refused by name, and no message holds a secret."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import gateway.config
from gateway.config import Config, from_values, load
from gateway.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"
SECRET = "hunter2-hunter2-hunter2-hunter2-"
"""Stands for every secret; 32 bytes."""
URL = "must be a URL that starts with"
HTTP_URL = "must be an absolute http or https URL without query, like 'https://data.example.org'"
PREFIX = "must be empty or start with '/' and not end with one, like '/api/v1/rs-catalog'"
UNKNOWN = "no such setting; config.example.toml shows them all"
ONE_JWT = "is missing; give the key of your tokens as an [[identity.jwt]] table"
ONE_STORAGE = "is missing; give at least one [[storage]] table with name, plugin and the plug-in's options"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not be read."""
    for name in list(os.environ):
        if name.upper().startswith("GATEWAY_"):
            monkeypatch.delenv(name)


def good() -> dict[str, Any]:
    return {
        "database": {"dsn": f"postgresql://user:{SECRET}@db/gateway"},
        "redis": {"url": f"redis://:{SECRET}@redis:6379/0"},
        "identity": {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}]},
        "storage": [
            {"name": "disk", "plugin": "local", "tenants": ["*"], "root": "/data", "secret_access_key": SECRET}
        ],
    }


def changed(path: str, value: object) -> dict[str, Any]:
    """Good settings but for the one at ``path``; ``...`` takes it away."""
    values: Any = good()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = values
    for parent in parents:
        target = target.setdefault(parent, {}) if isinstance(target, dict) else target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return dict(values)


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        from_values(values)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET[:7] not in str(error)
        assert SECRET[:7] not in repr(error)
        error = error.__cause__ or error.__context__
    return str(caught.value)


def test_little_must_be_set() -> None:
    config = from_values(good())
    assert (config.server.host, config.server.port, config.server.shutdown_timeout) == ("127.0.0.1", 8080, 30)
    assert config.storage[0].options == {"root": "/data", "secret_access_key": SECRET}
    assert config.identity.jwt[0].algorithms == ["HS256"]


MAIL = {"host": "mail.example.org", "sender": "downloads@example.org"}
HOOK = {
    "name": "portal",
    "url": "https://portal.example.org/hook",
    "secret": "whsec_c2VjcmV0IG9mIGEgd2ViaG9vaywgaW4gYWxsIHRlc3Rz",
    "tenants": ["*"],
}
WRONG: list[tuple[str, object, str]] = [
    ("server", 5, "server: must be a table"),
    ("server", [], "server: must be a table"),
    ("server.port", "http", "server.port: Input should be a valid integer"),
    ("server.port", -1, "server.port: Input should be greater than or equal to 0"),
    ("server.port", 65536, "server.port: Input should be less than or equal to 65535"),
    ("server.port", 80.5, "server.port: Input should be a valid integer"),
    ("server.host", "", "server.host: String should have at least 1 character"),
    ("server.host", 127, "server.host: Input should be a valid string"),
    ("server.shutdown_timeout", 0, "server.shutdown_timeout: Input should be greater than 0"),
    ("server.shutdown_timeout", -3, "server.shutdown_timeout: Input should be greater than 0"),
    ("server.shutdown_timeout", float("nan"), "server.shutdown_timeout: Input should be a finite number"),
    ("server.shutdown_timeout", float("inf"), "server.shutdown_timeout: Input should be a finite number"),
    ("server.shutdown_timeout", "soon", "server.shutdown_timeout: Input should be a valid number"),
    ("database", ..., "database: is missing; set dsn of [database] (or GATEWAY_DATABASE__DSN)"),
    ("database.dsn", ..., "database.dsn: is missing; set dsn of [database] (or GATEWAY_DATABASE__DSN)"),
    ("database.dsn", f"mysql://u:{SECRET}@h", f"database.dsn: {URL} postgresql:// or postgres://"),
    ("database.dsn", f"host=db password={SECRET}", f"database.dsn: {URL} postgresql:// or postgres://"),
    ("database.dsn", f"postgresql://u:{SECRET}℀@h", f"database.dsn: {URL} postgresql:// or postgres://"),
    ("database.dsn", f"postgresql://u:{SECRET}@[h", f"database.dsn: {URL} postgresql:// or postgres://"),
    ("database.dsn", "", f"database.dsn: {URL} postgresql:// or postgres://"),
    ("database.dsn", 5432, "database.dsn: Input should be a valid string"),
    ("database.pool_size", 0, "database.pool_size: Input should be greater than or equal to 1"),
    ("database.pool_size", 1001, "database.pool_size: Input should be less than or equal to 1000"),
    ("database.timeout", 0, "database.timeout: Input should be greater than 0"),
    ("redis", ..., "redis: is missing; set url of [redis] (or GATEWAY_REDIS__URL)"),
    ("redis.url", f"http://:{SECRET}@h", f"redis.url: {URL} redis:// or rediss:// or unix://"),
    ("redis.url", f":{SECRET}@h:6379", f"redis.url: {URL} redis:// or rediss:// or unix://"),
    ("redis.pool_size", 0, "redis.pool_size: Input should be greater than or equal to 1"),
    ("redis.timeout", float("inf"), "redis.timeout: Input should be a finite number"),
    ("identity", ..., f"identity: {ONE_JWT}"),
    ("identity.jwt", ..., "identity: give a key of your tokens as an [[identity.jwt]], or their issuer as an "),
    ("identity.jwt", [], "identity: give a key of your tokens as an [[identity.jwt]], or their issuer as an "),
    ("identity.jwt", {"secret": SECRET}, "identity.jwt: Input should be a valid list"),
    ("identity.jwt", [SECRET], "identity.jwt.0: must be a table"),
    ("identity.jwt.0.algorithms", ..., f"identity.jwt.0.algorithms: {ONE_JWT}"),
    ("identity.jwt.0.algorithms", [], f"identity.jwt.0.algorithms: {ONE_JWT}"),
    ("identity.jwt.0.algorithms", "HS256", "identity.jwt.0.algorithms: Input should be a valid list"),
    ("identity.jwt.0.algorithms", ["none"], "identity.jwt.0.algorithms.0: Input should be 'HS256'"),
    ("identity.jwt.0.algorithms", ["ES256K"], "identity.jwt.0.algorithms.0: Input should be 'HS256'"),
    ("identity.jwt.0.algorithms", ["ES256"], "identity.jwt.0: ES algorithms need 'public_key_file' and no 'secret'"),
    ("identity.jwt.0.algorithms", ["EdDSA", "PS256"], "identity.jwt.0: EdDSA/PS algorithms need 'public_key_file'"),
    ("identity.jwt.0.algorithms", ["hs256"], "identity.jwt.0.algorithms.0: Input should be 'HS256'"),
    ("identity.jwt.0.algorithms", ["HS256", "RS256"], "identity.jwt.0: 'algorithms' mixes HS and others"),
    ("identity.jwt.0.algorithms", ["RS256"], "identity.jwt.0: RS algorithms need 'public_key_file' and no 'secret'"),
    ("identity.jwt.0.secret", ..., "identity.jwt.0: HS algorithms need 'secret' and no 'public_key_file'"),
    ("identity.jwt.0.public_key_file", "/k", "identity.jwt.0: HS algorithms need 'secret' and no 'public_key_file'"),
    ("identity.jwt.0.secret", 12345, "identity.jwt.0.secret: Input should be a valid string"),
    ("identity.jwt.0.issuer", "", "identity.jwt.0.issuer: String should have at least 1 character"),
    ("identity.jwt.0.audience", "", "identity.jwt.0.audience: String should have at least 1 character"),
    ("identity.leeway", -1, "identity.leeway: Input should be greater than or equal to 0"),
    ("identity.leeway", 61, "identity.leeway: Input should be less than or equal to 60"),
    ("identity.leeway", float("nan"), "identity.leeway: Input should be"),
    ("identity.links", {}, "identity.links.secret: is missing"),
    ("identity.links", {"secret": SECRET[:31]}, "identity.links.secret: has 31 bytes, needs at least 32"),
    ("identity.links", {"secret": f"{SECRET}replace-me"}, "identity.links.secret: is the placeholder of the example"),
    (
        "identity.links",
        {"secret": SECRET, "max_lifetime": 604_801},
        "identity.links.max_lifetime: Input should be less",
    ),
    ("identity.links", {"secret": SECRET, "lifetime": 0}, "identity.links.lifetime: Input should be greater"),
    (
        "identity.links",
        {"secret": SECRET, "max_lifetime": 60},
        "identity.links: 'lifetime' is more than 'max_lifetime'",
    ),
    ("api.public_url", "data.example.org", f"api.public_url: {HTTP_URL}"),
    ("api.public_url", "ftp://data.example.org", f"api.public_url: {HTTP_URL}"),
    ("api.public_url", "https://", f"api.public_url: {HTTP_URL}"),
    ("api.public_url", "https://h/?a=b", f"api.public_url: {HTTP_URL}"),
    ("api.public_url", "https://h/#a", f"api.public_url: {HTTP_URL}"),
    ("api.public_url", "https://[h", f"api.public_url: {HTTP_URL}"),
    ("api.regards_prefix", "api", f"api.regards_prefix: {PREFIX}"),
    ("api.regards_prefix", "/", f"api.regards_prefix: {PREFIX}"),
    ("api.regards_prefix", "/api/", f"api.regards_prefix: {PREFIX}"),
    ("api.stac_prefix", "//api", f"api.stac_prefix: {PREFIX}"),
    ("api.stac_prefix", "/{api}", f"api.stac_prefix: {PREFIX}"),
    ("api.stac_prefix", "/a b", f"api.stac_prefix: {PREFIX}"),
    ("api.stac_prefix", "/a\n", f"api.stac_prefix: {PREFIX}"),
    ("delivery.send_timeout", 0, "delivery.send_timeout: Input should be greater than 0"),
    ("quotas.window", 0, "quotas.window: Input should be greater than or equal to 1"),
    ("quotas.window", 1.5, "quotas.window: Input should be a valid integer"),
    ("quotas.lease_ttl", 2, "quotas.lease_ttl: Input should be greater than or equal to 3"),
    ("quotas.metered_data_types", ["RAW"], "quotas.metered_data_types.0: Input should be 'RAWDATA', 'QUICKLOOK_SD'"),
    ("quotas.anonymous_ipv4_prefix", 33, "quotas.anonymous_ipv4_prefix: Input should be less than or equal to 32"),
    ("quotas.anonymous_ipv6_prefix", -1, "quotas.anonymous_ipv6_prefix: Input should be greater than or equal to 0"),
    ("mail", {**MAIL, "sender": "a@b.example, c@d.example"}, "mail.sender: must be an e-mail address without a name"),
    ("mail", {**MAIL, "sender": "a@b.example\r\nBcc: c@d"}, "mail.sender: must be an e-mail address without a name"),
    ("mail", {**MAIL, "sender_name": "a\r\nBcc: c@d"}, "mail.sender_name: String should match pattern"),
    ("mail", {**MAIL, "tls": "none"}, "mail: tls 'none' is for a server on this machine alone"),
    ("mail", {**MAIL, "user": "x"}, "mail: 'user' and 'password' go together"),
    ("mail", MAIL, ": 'public_url' of [api] must be set for [mail]"),
    (
        "webhooks",
        [{**HOOK, "url": "http://portal.example.org/"}],
        "webhooks.0.url: must be a URL with https, or http to",
    ),
    (
        "webhooks",
        [{**HOOK, "url": "http://169.254.169.254/latest"}],
        "webhooks.0.url: must be a URL with https, or http",
    ),
    ("webhooks", [{**HOOK, "url": "https://a.example@10.0.0.1/"}], "webhooks.0.url: must be a URL like"),
    ("webhooks", [{**HOOK, "url": "file:///etc/passwd"}], "webhooks.0.url: must be a URL like"),
    ("webhooks", [{**HOOK, "secret": SECRET}], "webhooks.0.secret: must be 'whsec_' and 24 to 64 bytes in base64"),
    ("webhooks", [{**HOOK, "secret": "whsec_c2hvcnQ="}], "webhooks.0.secret: must be 'whsec_' and 24 to 64 bytes"),
    ("webhooks", [HOOK, HOOK], "webhooks: more than one webhook is named portal; names must differ"),
    ("storage", ..., f"storage: {ONE_STORAGE}"),
    ("storage", [], f"storage: {ONE_STORAGE}"),
    ("storage", {"name": "disk"}, "storage: Input should be a valid list"),
    ("storage.0", SECRET, "storage.0: must be a table"),
    ("storage.0.name", ..., f"storage.0.name: {ONE_STORAGE}"),
    ("storage.0.name", "", "storage.0.name: String should match pattern"),
    ("storage.0.name", "a/b", "storage.0.name: String should match pattern"),
    ("storage.0.name", "-a", "storage.0.name: String should match pattern"),
    ("storage.0.name", "a\n", "storage.0.name: String should match pattern"),
    ("storage.0.plugin", ..., f"storage.0.plugin: {ONE_STORAGE}"),
    ("storage.0.plugin", "", "storage.0.plugin: String should have at least 1 character"),
    ("storage.0.type", "online", "storage.0.type: Input should be 'ONLINE', 'NEARLINE' or 'OFFLINE'"),
    ("storage.0.priority", "first", "storage.0.priority: Input should be a valid integer"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), WRONG, ids=[f"{path}={value!r}" for path, value, _ in WRONG])
def test_a_wrong_setting_is_refused_by_name(path: str, value: object, complaint: str) -> None:
    message = refusal(changed(path, value))
    assert message.startswith(complaint)
    assert "\n" not in message


@pytest.mark.parametrize(
    "path",
    [
        "serve",
        "DATABASE",
        "_env_file",
        "_cli_parse_args",
        "model_config",
        "server.prot",
        "database.url",
        "redis.dsn",
        "identity.secret",
        "identity.jwt.0.kid",
        "api.prefix",
        "delivery.timeout",
        "quotas.ttl",
    ],
)
def test_an_unknown_setting_is_refused_at_each_level(path: str) -> None:
    assert refusal(changed(path, "x")) == f"{path}: {UNKNOWN}"


def test_every_wrong_setting_has_its_line() -> None:
    values = changed("server.port", -1) | {"redis": {"url": "x", "pool": 1}, "nothing": {}, "storage": []}
    names = [line.partition(":")[0] for line in refusal(values).splitlines()]
    assert sorted(names) == ["nothing", "redis.pool", "redis.url", "server.port", "storage"]


@pytest.mark.parametrize(
    ("algorithms", "shortest"),
    [(["HS256"], 32), (["HS384"], 48), (["HS512"], 64), (["HS256", "HS512"], 64), (["HS384", "HS256"], 48)],
)
def test_a_secret_is_as_long_as_the_longest_hash(algorithms: list[str], shortest: int) -> None:
    def values(length: int) -> dict[str, Any]:
        return changed("identity.jwt.0", {"algorithms": algorithms, "secret": (SECRET * 2)[:length]})

    from_values(values(shortest))
    message = refusal(values(shortest - 1))
    assert message.startswith(f"identity.jwt.0: 'secret' has {shortest - 1} bytes")
    assert f"need at least {shortest}" in message


def test_a_secret_is_measured_in_bytes() -> None:
    from_values(changed("identity.jwt.0.secret", "é" * 16))


def test_names_of_storage_locations_differ() -> None:
    values = good()
    values["storage"] += [
        {"name": name, "plugin": "local", "tenants": ["*"]} for name in ("disk", "tape", "tape", "other")
    ]
    assert refusal(values) == "storage: more than one storage location is named disk, tape; names must differ"


def test_no_secret_is_shown_by_the_settings() -> None:
    config = from_values(good())
    for text in (repr(config), str(config), repr(config.storage), str(config.identity), f"{config.database}"):
        assert SECRET not in text
    assert "secret_access_key" in repr(config.storage)


def test_settings_do_not_change() -> None:
    config = from_values(good())
    for section, name in ((config, "server"), (config.server, "port"), (config.storage[0], "name")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, name, "x")


def test_public_url_ends_without_a_slash() -> None:
    assert from_values(changed("api.public_url", "https://h/base/")).api.public_url == "https://h/base"


class TestEnvironment:
    def test_it_wins_over_the_file_setting_by_setting(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "gateway.toml"
        file.write_text(EXAMPLE_TEXT, encoding="utf-8")
        before = load(file)
        monkeypatch.setenv("GATEWAY_SERVER__PORT", "9000")
        monkeypatch.setenv("GATEWAY_DATABASE__DSN", "postgres://elsewhere/db")
        monkeypatch.setenv("gateway_quotas__window", "7")
        config = load(file)
        assert (before.server.port, config.server.port) == (1234, 9000)
        assert config.server.host == before.server.host == "::1"
        assert config.database.dsn.get_secret_value() == "postgres://elsewhere/db"
        assert config.database.pool_size == before.database.pool_size == 3
        assert config.quotas.window == 7

    def test_it_is_enough_without_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GATEWAY_DATABASE__DSN", "postgresql://h/d")
        monkeypatch.setenv("GATEWAY_REDIS__URL", "redis://h")
        monkeypatch.setenv("GATEWAY_IDENTITY__JWT", f'[{{"algorithms": ["HS256"], "secret": "{SECRET}"}}]')
        monkeypatch.setenv(
            "GATEWAY_STORAGE", '[{"name": "disk", "plugin": "local", "tenants": ["*"], "root": "/data"}]'
        )
        config = load(None)
        assert config.storage[0].options == {"root": "/data"}

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("GATEWAY_SERVER__PORT", "many", "server.port: Input should be a valid integer"),
            ("GATEWAY_SERVER__PORT", "", "server.port: Input should be a valid integer"),
            ("GATEWAY_SERVER__HOST", "", "server.host: String should have at least 1 character"),
            ("GATEWAY_SERVER__PROT", "1", f"server.prot: {UNKNOWN}"),
            ("GATEWAY_SERVRE__PORT", "1", f"GATEWAY_SERVRE__PORT: {UNKNOWN}"),
            ("GATEWAY_SERVER", "1", "server: must be a table"),
            ("GATEWAY_REDIS__URL", f"http://{SECRET}", "redis.url: must be a URL"),
            ("GATEWAY_IDENTITY__JWT__0__SECRET", SECRET, "identity.jwt: Input should be a valid list"),
        ],
    )
    def test_what_is_wrong_there_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
    ) -> None:
        monkeypatch.setenv(name, value)
        assert refusal(good()).startswith(complaint)

    @pytest.mark.parametrize("name", ["GATEWAY_STORAGE", "GATEWAY_IDENTITY__JWT", "GATEWAY_SERVER"])
    @pytest.mark.parametrize("value", ["[", "{'a'}", f'[{{"secret": "{SECRET}"'])
    def test_a_list_that_is_no_json_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        message = refusal(good())
        assert f'"{name.removeprefix("GATEWAY_").partition("__")[0].lower()}"' in message
        assert "must be JSON" in message

    def test_what_has_no_section_is_not_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Container platforms set such for a service that is called gateway."""
        monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv("GATEWAY_TEST_REDIS_URL", "redis://h")
        from_values(good())


class TestLoad:
    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        for file, reason in ((tmp_path / "absent.toml", "No such file"), (tmp_path, "Is a directory")):
            with pytest.raises(ConfigurationError, match=f"^{re.escape(str(file))}: cannot be read: {reason}"):
                load(file)

    @pytest.mark.parametrize("content", [b"[server", b"a = 1\na = 2\n", b"\xff\xfe", b"port: 80\n"])
    def test_a_file_that_is_no_toml(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "gateway.toml"
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"gateway\.toml: is not TOML: ."):
            load(file)


EXAMPLE_TEXT = f"""
[server]
host = "::1"
port = 1234
[database]
dsn = "postgresql://h/d"
pool_size = 3
[redis]
url = "redis://h"
[[identity.jwt]]
algorithms = ["HS256"]
secret = "{SECRET}"
[[storage]]
name = "disk"
plugin = "local"
tenants = ["*"]
root = "/data"
"""


def config_modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(gateway.config.__path__, f"{gateway.config.__name__}."):
        yield importlib.import_module(found.name)


def settings_classes() -> Iterator[type[BaseModel]]:
    for module in config_modules():
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, BaseModel) and member.__module__ == module.__name__:
                yield member


def undocumented(node: ast.ClassDef) -> Iterator[str]:
    """Names of settings without a docstring beneath them."""
    for position, statement in enumerate(node.body):
        if isinstance(statement, ast.AnnAssign):
            after = node.body[position + 1] if position + 1 < len(node.body) else None
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not documented or not str(ast.literal_eval(after.value)).strip():  # type: ignore[union-attr]
                yield f"{node.name}.{ast.unparse(statement.target)}"


def test_every_setting_is_documented_in_the_source() -> None:
    classes = {cls.__name__ for cls in settings_classes()}
    nodes = [
        node
        for module in config_modules()
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name in classes
    ]
    assert {"Config", "Database", "JwtKey", "StorageLocation"} <= classes
    assert {node.name for node in nodes} == classes
    assert not [node.name for node in nodes if not ast.get_docstring(node)]
    # The settings of Config are the sections, which are documented by their classes.
    assert not [name for node in nodes if node.name != "Config" for name in undocumented(node)]


def test_the_guard_of_the_documentation_bites() -> None:
    node = ast.parse("class A:\n    a: int\n    '''Documented.'''\n    b: int = 1\n    c: int\n    ''' '''\n").body[0]
    assert isinstance(node, ast.ClassDef)
    assert list(undocumented(node)) == ["A.b", "A.c"]


def settings_by_table() -> dict[str, set[str]]:
    """The settings of each table: ``[server]``, ``[[identity.jwt]]``."""
    others = ("policies", "storage", "companion", "mail", "webhooks")
    tables = {name: field.annotation for name, field in Config.model_fields.items() if name not in others}
    found = {name: set(section.model_fields) for name, section in tables.items() if section is not None}
    found["identity"] -= {"jwt", "issuers", "links", "login", "api_keys"}
    found["identity.jwt"] = set(gateway.config.JwtKey.model_fields)
    found["identity.issuers"] = set(gateway.config.Issuer.model_fields) - {"claims"}
    found["identity.issuers.claims"] = set(gateway.config.ClaimNames.model_fields)
    found["identity.api_keys"] = set(gateway.config.ApiKeys.model_fields)
    found["identity.login"] = set(gateway.config.Login.model_fields)
    found["identity.links"] = set(gateway.config.Links.model_fields)
    found["mail"] = set(gateway.config.Mail.model_fields)
    found["webhooks"] = set(gateway.config.Webhook.model_fields)
    found["companion"] = set(gateway.config.Companion.model_fields)
    found["policies"] = set(gateway.config.PolicyTable.model_fields)
    found["storage"] = set(gateway.config.StorageLocation.model_fields)
    return found


def shown_by_table(text: str) -> dict[str, set[str]]:
    """The names that ``text`` sets, or shows commented out as ``# name = value``, by table.

    Of tables that are commented out, those of a list count.
    """
    shown: dict[str, set[str]] = {}
    table = ""
    for line in text.splitlines():
        if header := re.fullmatch(
            r"(?:# (?=\[\[?(?:identity|policies|companion|mail|webhooks)))?\[\[?([\w.]+)\]\]?", line.strip()
        ):
            table = header[1]
        elif setting := re.match(r"(?:# ?)?(\w+) = \S", line):
            shown.setdefault(table, set()).add(setting[1])
    return shown


def test_the_example_shows_every_setting() -> None:
    shown = shown_by_table(EXAMPLE.read_text(encoding="utf-8"))
    for table, settings in settings_by_table().items():
        assert settings <= shown[table], f"[{table}] of config.example.toml lacks {settings - shown[table]}"


def test_the_example_shows_no_setting_that_is_not_there() -> None:
    shown = shown_by_table(EXAMPLE.read_text(encoding="utf-8"))
    settings = settings_by_table()
    assert set(shown) == set(settings)
    # [[policies]] and [[storage]] show options of their plug-ins, too.
    for table in set(settings) - {"policies", "storage"}:
        assert shown[table] <= settings[table], f"[{table}] has no setting {shown[table] - settings[table]}"


def test_the_example_is_valid_and_what_it_comments_out_are_the_defaults(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    values = tomllib.loads(text)
    for location in values["storage"]:
        location["root"] = str(tmp_path)
    # As it stands everybody knows the secret, so that a gateway does not start with it.
    with pytest.raises(ConfigurationError, match="placeholder"):
        from_values(values)
    values["identity"]["jwt"][0]["secret"] = "s" * 64
    config = from_values(values)
    optional = {
        "public_key_file",
        "issuer",
        "audience",
        "public_url",
        "default_tenant",
        "sentinel_service",
        "sentinel_password",
    }
    for name in ("server", "database", "redis", "identity", "api", "delivery", "quotas", "rights"):
        section = getattr(config, name)
        for setting in type(section).model_fields:
            default = re.search(rf"^# {setting} = (.+)$", _table(text, name), re.MULTILINE)
            if default and setting not in optional:
                assert tomllib.loads(f"x = {default[1]}")["x"] == getattr(section, setting), f"{name}.{setting}"


def test_the_issuer_that_the_example_comments_out_is_valid_and_shows_the_defaults() -> None:
    lines = (
        EXAMPLE.read_text(encoding="utf-8").partition("# [[identity.issuers]]\n")[2].partition("\n\n")[0].splitlines()
    )
    shown = tomllib.loads("\n".join(line[2:] for line in lines if re.match(r"# (\w+ = |\[)", line)))
    own = {"issuer", "audience", "algorithms", "jwks_url", "tenant", "default_role", "role_prefix", "ca_file"}
    claims = shown.pop("identity")["issuers"]["claims"]
    assert gateway.config.Issuer.model_validate({**shown, "tenant": None, "claims": claims})
    default = gateway.config.Issuer(issuer="https://idp.example.org", audience="downloads", algorithms=["RS256"])
    assert {name: shown[name] for name in set(shown) - own} == default.model_dump(exclude={*own, "claims"})


def _table(text: str, name: str) -> str:
    """The lines below ``[name]``."""
    return re.split(r"^\[", text.partition(f"[{name}]\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
