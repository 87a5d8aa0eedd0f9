"""Rights that leave something to a policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.config import PolicyTable
from gateway.errors import ConfigurationError
from gateway.rights import policies as module
from gateway.rights.policies import Policies, Verdict, load_plugin, open_policies
from gateway.rights.policy import Caller, Policy, PolicyError, Product, Question
from gateway.rights.properties import Properties
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, RunningGateway, principal
from tests.rights.support import describe, grant

FACTS = {
    "groups": ["everyone"],
    "urn": "urn-1",
    "collection": "c",
    "item": "i",
    "properties": {"project": "alpha"},
    "quality_score": 5.0,
    "quality_level": None,
}


def row(*questions: tuple[str, dict[str, Any] | None, bool, str], visible: bool = False) -> dict[str, Any]:
    asked = json.dumps(questions) if questions else None
    return {"visible": visible, "downloadable": False, "questions": asked, "facts": json.dumps(FACTS)}


class Scripted:
    """Answers by the option ``say``, and remembers what it was asked."""

    def __init__(self, seconds: float = 0) -> None:
        self.asked: list[Sequence[Question]] = []
        self.seconds = seconds

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        return cls()

    async def decide(self, questions: Sequence[Question]) -> Sequence[bool]:
        self.asked.append(questions)
        await asyncio.sleep(self.seconds)
        said = [question.options["say"][question.action] for question in questions]
        if "?" in said:
            raise PolicyError("no idea")
        return said

    async def close(self) -> None:
        pass


def say(read: Any, download: Any = False) -> dict[str, Any]:
    return {"say": {"read": read, "download": download}}


CUSTOM, INHERITED, NONE = "CUSTOM_ACCESS", "INHERITED_ACCESS", "NO_ACCESS"
CASES = [
    ([("s", say(True), True, NONE)], (True, False)),
    ([("s", say(True), True, INHERITED)], (True, True)),
    ([("s", say(False), True, INHERITED)], (False, False)),
    ([("s", say(True, True), True, CUSTOM)], (True, True)),
    ([("s", say(True, False), True, CUSTOM)], (True, False)),
    ([("s", say(False, True), True, CUSTOM)], (False, False)),
    ([("s", say("?"), True, INHERITED)], (None, None)),
    ([("s", say("?"), True, NONE)], (None, False)),
    ([("s", say("?"), True, INHERITED), ("t", say(True), True, NONE)], (True, None)),
    ([("s", say("?"), True, INHERITED), ("t", say(True), True, INHERITED)], (True, True)),
    ([("nobody", say(True, True), True, INHERITED)], (False, False)),
    ([("nobody", say(True, True), True, CUSTOM), ("t", say(True, True), True, CUSTOM)], (True, True)),
    # Of each answer exactly True counts, whatever the policy gives.
    ([("s", say(1), True, INHERITED)], (None, None)),
    ([("s", say(None), True, INHERITED)], (None, None)),
    ([("s", say("true"), True, INHERITED)], (None, None)),
]


@pytest.mark.parametrize(("questions", "expected"), CASES)
async def test_what_follows_from_the_answers(questions: Any, expected: tuple[bool | None, bool | None]) -> None:
    policies = Policies({"s": (Scripted(), 1), "t": (Scripted(), 1)})
    assert await policies.judge(SCIENTIST, [row(*questions)]) == [Verdict(*expected)]


async def test_a_right_that_leaves_only_files_to_a_policy(gateway: RunningGateway) -> None:
    policies = Policies({"s": (policy := Scripted(), 1)})
    for said, expected in ((True, True), (False, False), ("?", None)):
        seen = row(("s", say("?", said), False, CUSTOM), visible=True)
        assert await policies.judge(SCIENTIST, [seen]) == [Verdict(True, expected)]
    policy.asked.clear()
    assert await policies.judge(SCIENTIST, [seen], files=False) == [Verdict(True, False)]
    assert not policy.asked


async def test_files_that_nobody_asked_about_are_not_granted() -> None:
    policies = Policies({"s": (Scripted(), 1)})
    leaves_both = row(("s", say(True), True, CUSTOM))
    assert await policies.judge(SCIENTIST, [leaves_both], files=False) == [Verdict(True, False)]


async def test_a_policy_that_takes_too_long_has_not_decided() -> None:
    policies = Policies({"s": (Scripted(seconds=60), 0.01)})
    assert await policies.judge(SCIENTIST, [row(("s", say(True), True, INHERITED))]) == [Verdict(None, None)]


async def test_too_few_answers_are_none(caplog: pytest.LogCaptureFixture) -> None:
    class Short(Scripted):
        async def decide(self, questions: Sequence[Question]) -> Sequence[bool]:
            return [True] * (len(questions) - 1)

    rows = [row(("s", say(True), True, INHERITED))] * 2
    assert await Policies({"s": (Short(), 1)}).judge(SCIENTIST, rows) == [Verdict(None, None)] * 2
    assert "policy 's' cannot decide: PolicyError: its answers are not yes or no to each question" in caplog.text


async def test_a_policy_that_nobody_knows_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    asked = row(("old\nname", {}, True, INHERITED))
    assert await Policies({}).judge(SCIENTIST, [asked]) == [Verdict(False, False)]
    assert "the policy 'old\\nname', which nobody knows" in caplog.text


async def test_a_listing_asks_each_policy_once_and_only_about_what_is_open() -> None:
    policy = Scripted()
    certain = {"visible": True, "downloadable": True, "questions": row(("s", {}, True, NONE))["questions"]}
    closed = {"visible": False, "downloadable": False, "questions": None}
    rows = [certain, closed, *(row(("s", say(number % 2 == 0), True, INHERITED)) for number in range(6))]
    verdicts = await Policies({"s": (policy, 1)}).judge(SCIENTIST, rows)
    assert [verdict.visible for verdict in verdicts] == [True, False, True, False, True, False, True, False]
    (questions,) = policy.asked
    assert len(questions) == 6
    assert questions[0] == Question(
        "read",
        Caller("esa", SCIENTIST.email, "REGISTERED_USER", frozenset({"science", "everyone"})),
        Product("urn-1", "c", "i", {"project": "alpha"}, 5.0, None),
        say(True),
    )


async def test_a_long_listing_is_asked_about_in_parts_until_one_fails() -> None:
    policy = Scripted()
    rows = [row(("s", say("?" if number == 150 else number % 3 == 0), True, NONE)) for number in range(250)]
    verdicts = await Policies({"s": (policy, 1)}).judge(SCIENTIST, rows)
    assert [len(questions) for questions in policy.asked] == [100, 100]
    assert [verdict.visible for verdict in verdicts[:100]] == [number % 3 == 0 for number in range(100)]
    assert {verdict.visible for verdict in verdicts[100:]} == {None}


async def test_all_parts_of_a_long_listing_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    policy = Scripted(seconds=0.05)
    rows = [row(("s", say(True), True, NONE)) for _ in range(10_000)]
    verdicts = await Policies({"s": (policy, 0.5)}).judge(SCIENTIST, rows)
    assert len(policy.asked) <= 11
    assert verdicts[-1].visible is None


def question(options: Any, **properties: Any) -> Question:
    caller = Caller("esa", "x@example.org", "EXPLOIT", frozenset({"alpha", "beta"}))
    return Question("read", caller, Product("urn", "c", "i", properties, None, None), options)


def one(name: str, **comparison: Any) -> dict[str, Any]:
    return {"all": [{"property": name, **({"in": comparison.pop("among")} if "among" in comparison else comparison)}]}


GROUPS = {"caller": "groups"}
COMPARISONS: list[tuple[dict[str, Any], Any, bool]] = [
    (one("p", equals="a"), "a", True),
    (one("p", equals="a"), "A", False),
    (one("p", equals=1), 1.0, True),
    (one("p", equals=1), True, False),
    (one("p", equals=1), "1", False),
    (one("p", equals="a"), ["b", "a"], True),
    (one("p", equals="a"), [], False),
    (one("p", equals=None), None, False),
    (one("p", equals={"caller": "email"}), "x@example.org", True),
    (one("p", equals={"caller": "email"}), "y@example.org", False),
    (one("p", equals={"caller": "role"}), "EXPLOIT", True),
    (one("p", among=["a", "b"]), "b", True),
    (one("p", among=["a", "b"]), "c", False),
    (one("p", among=[]), "c", False),
    (one("p", among=GROUPS), "beta", True),
    (one("p", among=GROUPS), ["gamma", "alpha"], True),
    (one("p", among=GROUPS), "gamma", False),
    (one("p", atLeast=5), 5, True),
    (one("p", atLeast=5), 4.99, False),
    (one("p", atLeast=5), "6", False),
    (one("p", atLeast=0), True, False),
    (one("p", atMost=20), 20.0, True),
    (one("p", atMost=20), 21, False),
    (one("q", equals="a"), "a", False),
    ({"any": [{"property": "p", "equals": "a"}, {"property": "p", "equals": "b"}]}, "b", True),
    ({"all": [{"property": "p", "equals": "a"}, {"property": "p", "equals": "b"}]}, "b", False),
    ({"all": [{"property": "p", "equals": "a"}, {"property": "p", "equals": "b"}]}, ["a", "b"], True),
]


@pytest.mark.parametrize(("options", "value", "expected"), COMPARISONS)
async def test_properties_are_compared(options: Any, value: Any, expected: bool) -> None:
    assert await Properties().decide([question(options, p=value)]) == [expected]


async def test_a_caller_without_email_equals_nobody() -> None:
    caller = Caller("esa", None, "PUBLIC", frozenset())
    product = Product("urn", "c", "i", {"owner": None, "other": "null"}, None, None)
    for name in ("owner", "other"):
        asked = Question("read", caller, product, one(name, equals={"caller": "email"}))
        assert await Properties().decide([asked]) == [False]


BAD = [
    {},
    {"all": []},
    {"all": {}},
    {"none": [{"property": "p", "equals": 1}]},
    {"all": [{"property": "p", "equals": 1}], "any": [{"property": "p", "equals": 1}]},
    {"any": [{"property": "p", "equals": 1}, {"property": "p"}]},
    {"any": [{"property": 1, "equals": 1}]},
    {"any": [{"property": "p", "like": "a%"}]},
    {"any": [{"property": "p", "in": "abc"}]},
    {"any": [{"property": "p", "in": {"caller": "email"}}]},
    {"any": [{"property": "p", "equals": {"caller": "password"}}]},
    {"any": [{"property": "p", "atLeast": "5"}]},
    {"any": [{"property": "p", "atMost": True}]},
]


@pytest.mark.parametrize("options", BAD)
async def test_options_that_make_no_sense_decide_nothing(options: Any) -> None:
    with pytest.raises(PolicyError):
        await Properties().decide([question(options, p=1)])


async def test_a_policy_chooses_the_products_that_a_right_opens(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entries = {name: await made.file(b"data", collection="chosen", item=name) for name in ("alpha", "beta", "none")}
    look = await made.file(b"look", collection="chosen", item="alpha", asset="look", data_type="THUMBNAIL")
    for name, entry in entries.items():
        await describe(made, entry, **({} if name == "none" else {"project": name}))
    await made.licence("chosen")
    everyone = await made.group("everyone", public=True)
    for files, of_file in ((INHERITED, 200), (CUSTOM, 200), (NONE, 403)):
        await grant(made, "chosen", everyone, CUSTOM, files, policy="properties", options=one("project", among=GROUPS))
        alpha = principal("a", "alpha")
        assert (await gateway.get(entries["beta"].stac, alpha))[0].status == 403
        assert (await gateway.get(entries["none"].stac, alpha))[0].status == 403
        # Accepting the licence takes the same right.
        assert (await gateway.get(f"{entries['beta'].regards}?acceptLicense=true", alpha))[0].status == 403
        assert (await gateway.get(entries["alpha"].stac, alpha))[0].status == (423 if files == INHERITED else of_file)
        assert (await gateway.get(f"{entries['alpha'].regards}?acceptLicense=true", alpha))[0].status == of_file
        response, _ = await gateway.get(look.stac, alpha)
        assert (response.status, response.headers["Cache-Control"]) == (200, "private, no-cache")
        assert (await gateway.get(look.stac, OUTSIDER))[0].status == 403
        assert (await gateway.get(entries["beta"].stac, ADMIN))[0].status == 423


async def test_memberships_in_the_database_count_for_policies(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="chosen")
    await describe(made, entry, project="alpha")
    everyone, alpha = await made.group("everyone", public=True), await made.group("alpha")
    await grant(made, "chosen", everyone, CUSTOM, policy="properties", options=one("project", among=GROUPS))
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403
    await made.connection.execute("INSERT INTO group_members VALUES ($1, $2)", alpha, OUTSIDER.email)
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200


async def test_where_a_policy_cannot_decide_the_answer_is_503_or_that_of_another_right(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="chosen")
    everyone = await made.group("everyone", public=True)
    await grant(made, "chosen", everyone, CUSTOM, policy="properties", options={"nonsense": 1})
    await made.licence("chosen")
    for path in (entry.stac, f"{entry.regards}?acceptLicense=true"):
        response, body = await gateway.get(path, OUTSIDER)
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert b"nonsense" not in body
    assert await made.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0
    await made.grant("chosen", await made.group("science"))
    assert (await gateway.get(f"{entry.stac}?acceptLicense=true", SCIENTIST))[0].status == 200
    await made.connection.execute("UPDATE access_rights SET policy = 'unheard of'")
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403


async def test_policies_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys.py").write_text(
        "closed = []\n"
        "class Both:\n"
        "    @classmethod\n"
        "    def from_options(cls, name, options):\n"
        "        self = cls(); self.answer = options['answer']; return self\n"
        "    async def decide(self, questions):\n"
        "        return [self.answer] * len(questions)\n"
        "    async def close(self):\n"
        "        closed.append(self.answer)\n"
    )
    information = tmp_path / "somebodys-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[gateway.policies]\nboth = somebodys:Both\nbroken = nowhere:X\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    tables = [PolicyTable(name=name, plugin="both", answer=name == "yes") for name in ("yes", "no")]
    async with open_policies(tables) as policies:
        for name in ("yes", "no"):
            expected = name == "yes"
            assert await policies.judge(SCIENTIST, [row((name, {}, True, INHERITED))]) == [Verdict(expected, expected)]
        by_properties = row(("properties", one("project", equals="alpha"), True, INHERITED))
        assert await policies.judge(SCIENTIST, [by_properties]) == [Verdict(True, True)]
    import somebodys  # type: ignore[import-not-found]

    assert sorted(somebodys.closed) == [False, True]
    with pytest.raises(ConfigurationError, match="'broken' cannot be imported"):
        load_plugin("broken")
    with pytest.raises(ConfigurationError, match="'absent' is not installed; installed are: both, broken, opa, prop"):
        load_plugin("absent")


def test_what_comes_with_the_gateway_is_there_without_entry_points() -> None:
    plugins: list[type[Policy]] = [load_plugin(name) for name in ("opa", "properties")]
    assert [plugin.__name__ for plugin in plugins] == ["OpenPolicyAgent", "Properties"]


async def test_a_table_with_options_that_its_plug_in_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="policy 'mine': colour: plug-in 'properties' has no options"):
        async with open_policies([PolicyTable(name="mine", plugin="properties", colour="red")]):
            pass
