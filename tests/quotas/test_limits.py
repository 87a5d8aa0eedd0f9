"""Which rules bind whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.principal import Principal, anonymous
from gateway.quotas.limits import (
    MOST,
    Limit,
    Metric,
    Rule,
    Subject,
    accounts_of,
    complaint,
    limits_of,
    period_seconds,
)

USER = Principal("esa", "scientist", "me@example.org", "EXPERT", ("a", "b"))
NOBODY = anonymous("esa", "192.0.2.7/32")
CALLERS = st.sampled_from([USER, NOBODY])


def each(subject: Subject, name: str, value: int, **options: Any) -> Rule:
    return Rule(subject, name, False, "bytes", "day", value, **options)


def own(value: int, **options: Any) -> Limit:
    return Limit("user:me@example.org", "bytes", "day", value, **options)


METRICS: list[tuple[Metric, str]] = [
    ("downloads", "total"),
    ("bytes", "total"),
    ("bytes", "day"),
    ("bytes", "60s"),
    ("concurrent", "now"),
    ("rate", "1s"),
]


@st.composite
def rules(draw: st.DrawFn, who: Principal) -> list[Rule]:
    """Rules that concern ``who``, each key once."""
    subjects: list[tuple[Subject, str]] = [("tenant", ""), ("group", "a"), ("group", "b"), ("role", who.role)]
    subjects.append(("anonymous", "") if who.email is None else ("user", who.email))
    found = {}
    for _ in range(draw(st.integers(0, 12))):
        (subject, name), (metric, period) = draw(st.sampled_from(subjects)), draw(st.sampled_from(METRICS))
        counts_up = metric in ("downloads", "bytes")
        rule = Rule(
            subject,
            name,
            draw(st.booleans()) if subject != "user" else False,
            metric,
            period,
            draw(st.integers(-1, 5)),
            burst=draw(st.integers(1, 3)) if metric == "rate" else 1,
            slow_rate=draw(st.none() | st.integers(1, 3)) if counts_up else None,
            fail="closed" if counts_up else draw(st.sampled_from(["closed", "capped"])),
        )
        assert complaint(rule) is None
        found[rule.subject, rule.name, rule.shared, rule.metric, rule.period] = rule
    return list(found.values())


CASES = CALLERS.flatmap(lambda who: st.tuples(st.just(who), rules(who)))


def test_without_rules_users_are_unlimited_and_anonymous_callers_refused() -> None:
    assert limits_of((), USER) == ()
    assert limits_of((), NOBODY) == (Limit("anonymous", "downloads", "total", 0),)


def test_a_default_of_users_lets_no_anonymous_caller_in_and_binds_none() -> None:
    default = each("tenant", "", 5)
    assert limits_of([default], USER) == (own(5),)
    assert limits_of([default], NOBODY) == (Limit("anonymous", "downloads", "total", 0),)
    assert limits_of([default, Rule("anonymous", "", True, "downloads", "total", -1)], NOBODY) == ()


@pytest.mark.parametrize(
    ("given_rules", "expected"),
    [
        ([each("tenant", "", 5)], [own(5)]),
        ([each("tenant", "", 5), each("role", "EXPERT", 9)], [own(9)]),
        ([each("tenant", "", 5), each("role", "EXPERT", -1)], []),
        ([each("role", "EXPERT", 9), each("group", "a", 8), each("group", "b", -1)], [own(8)]),
        ([each("role", "EXPERT", 9), each("group", "a", 0)], [own(0)]),
        ([each("tenant", "", 1), each("group", "a", 0), each("user", "me@example.org", 70)], [own(70)]),
        ([each("tenant", "", 1), each("group", "a", 0), each("user", "me@example.org", -1)], []),
        ([each("group", "a", 5, slow_rate=10), each("group", "b", 5)], [own(5)]),
        ([each("group", "a", 5, slow_rate=10), each("group", "b", 9)], [own(9)]),
        ([each("group", "a", 5, slow_rate=10), each("group", "b", 5, slow_rate=9)], [own(5, slow_rate=9)]),
        ([each("group", "a", 5, slow_rate=10), each("group", "b", -1)], [own(5, slow_rate=10)]),
    ],
)
def test_ones_own_rule_wins_then_the_tightest_of_groups_and_role_then_the_default(
    given_rules: list[Rule], expected: list[Limit]
) -> None:
    assert list(limits_of(given_rules, USER)) == expected
    assert list(limits_of(given_rules[::-1], USER)) == expected


def test_a_network_is_bound_by_the_rule_of_anonymous_callers_before_that_of_a_public_group() -> None:
    public, network = each("group", "everyone", 3), each("anonymous", "", 9)
    assert limits_of([public, network], NOBODY) == (Limit("network:192.0.2.7/32", "bytes", "day", 9),)
    let_in = Rule("anonymous", "", True, "downloads", "total", -1)
    assert limits_of([public, let_in], NOBODY) == (Limit("network:192.0.2.7/32", "bytes", "day", 3),)


@given(CASES)
def test_the_own_rule_wins_whatever_the_others_say(case: tuple[Principal, list[Rule]]) -> None:
    who, given_rules = case
    limits = limits_of(given_rules, who)
    for rule in given_rules:
        if rule.subject in ("user", "anonymous") and not rule.shared:
            found = [it for it in limits if (it.metric, it.period) == (rule.metric, rule.period)]
            values = [it.value for it in found if it.account.startswith(("user:", "network:"))]
            assert values == ([] if rule.value == -1 else [rule.value])


@given(CASES)
def test_every_shared_rule_is_there_beside_the_others(case: tuple[Principal, list[Rule]]) -> None:
    who, given_rules = case
    limits = limits_of(given_rules, who)
    expected = {
        Limit(it.account, it.metric, it.period, it.value, it.burst, it.slow_rate, it.fail == "capped")
        for it in given_rules
        if it.shared and it.value >= 0
    }
    if who.is_anonymous and not any(rule.subject == "anonymous" for rule in given_rules):
        expected.add(Limit("anonymous", "downloads", "total", 0))
    assert {limit for limit in limits if not limit.account.startswith(("user:", "network:"))} == expected


@given(CASES)
def test_a_counter_is_bounded_once_and_the_order_of_rules_does_not_matter(
    case: tuple[Principal, list[Rule]],
) -> None:
    who, given_rules = case
    limits = limits_of(given_rules, who)
    assert limits_of(given_rules[::-1], who) == limits
    counters = [(limit.account, limit.metric, limit.period) for limit in limits]
    assert len(set(counters)) == len(counters)
    assert all(limit.value >= 0 for limit in limits)


@given(CASES, st.data())
def test_raising_a_rule_never_tightens_a_limit(case: tuple[Principal, list[Rule]], data: st.DataObject) -> None:
    who, given_rules = case
    if not given_rules:
        return
    position = data.draw(st.integers(0, len(given_rules) - 1))
    rule = given_rules[position]
    if rule.value == -1:
        return
    value = data.draw(st.sampled_from([-1, *range(rule.value, 8)]))
    raised = [*given_rules]
    raised[position] = dataclasses.replace(rule, value=value)
    before = {(it.account, it.metric, it.period): it for it in limits_of(given_rules, who)}
    after = {(it.account, it.metric, it.period): it for it in limits_of(raised, who)}
    assert after.keys() <= before.keys()
    for counter, limit in after.items():
        assert looseness(limit) >= looseness(before[counter])


def looseness(limit: Limit) -> tuple[bool, int]:
    return limit.slow_rate is not None, limit.value


@given(CASES)
def test_accounts_begin_with_ones_own_and_hold_all_that_is_limited(case: tuple[Principal, list[Rule]]) -> None:
    who, given_rules = case
    limits = limits_of(given_rules, who)
    accounts = accounts_of(who, limits)
    always = ("network:192.0.2.7/32", "anonymous", "tenant") if who.is_anonymous else ("user:me@example.org", "tenant")
    assert accounts[: len(always)] == always
    assert set(accounts) == {*always, *(limit.account for limit in limits)}
    assert len(set(accounts)) == len(accounts)
    assert accounts[len(always) :] == tuple(sorted(accounts[len(always) :]))


def test_rolling_periods_are_whole_seconds() -> None:
    assert period_seconds("1s") == 1
    assert period_seconds("99999999s") == 99_999_999
    for period in (
        "total",
        "day",
        "month",
        "now",
        "",
        "s",
        "0s",
        "01s",
        "100000000s",
        "1 s",
        "1S",
        "-1s",
        "1s\n",
        "١s",
    ):
        assert period_seconds(period) is None


GOOD = Rule("tenant", "", False, "bytes", "day", 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": "planet"}, "subject is 'planet'"),
        ({"subject": "user"}, "a rule of subject user has a name"),
        ({"subject": "anonymous", "name": "x"}, "a rule of subject anonymous has no name"),
        ({"subject": "group", "name": "a\0"}, "characters"),
        ({"subject": "user", "name": "x", "shared": True}, "cannot be shared"),
        ({"metric": "files"}, "metric is 'files'"),
        ({"period": "year"}, "period is 'year'; of bytes it must be total, day, month, or seconds like 3600s"),
        ({"period": "now"}, "period is 'now'; of bytes"),
        ({"metric": "concurrent"}, "period is 'day'; of concurrent it must be now"),
        ({"metric": "rate"}, "period is 'day'; of rate it must be seconds like 1s"),
        ({"value": -2}, "value is -2"),
        ({"value": MOST + 1}, "value is 9007199254740993"),
        ({"metric": "rate", "period": "1s", "burst": 0}, "burst is 0"),
        ({"metric": "rate", "period": "1s", "burst": 2**31}, "burst is 2147483648"),
        ({"burst": 2}, "burst is of the metric rate alone"),
        ({"slow_rate": 0}, "slow_rate is 0"),
        ({"metric": "concurrent", "period": "now", "slow_rate": 1}, "slow_rate is of the metrics downloads and bytes"),
        ({"fail": "open"}, "fail is 'open'"),
        ({"fail": "capped"}, "fail capped is of the metrics concurrent and rate"),
    ],
)
def test_a_complaint_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    assert complaint(GOOD) is None
    assert words in str(complaint(dataclasses.replace(GOOD, **changes)))
