"""Signed URLs: the two that are compared make the same ones."""

from __future__ import annotations

import pytest

from benchmarks.presign import TRIES, DisagreementError, Sample, check, measure, signers


@pytest.mark.parametrize("answered", [False, True])
async def test_both_sign_the_same(answered: bool) -> None:
    async with signers() as sides:
        await check(sides, answered=answered)


async def test_another_signature_is_seen() -> None:
    async with signers() as (ours, theirs):

        async def wrong(key: str, answered: bool) -> str:
            return await theirs(f"{key}.", answered)

        with pytest.raises(DisagreementError, match="gateway signs"):
            await check((ours, wrong), answered=False)


async def test_who_never_signs_within_the_same_second_is_not_compared() -> None:
    calls = iter(range(2 * TRIES))

    async def sign(key: str, answered: bool) -> str:
        return f"https://store/{key}?X-Amz-Date={next(calls)}"

    with pytest.raises(DisagreementError, match="same second"):
        await check((sign, sign), answered=False)


async def test_no_object_is_signed_for_twice() -> None:
    keys = []

    async def sign(key: str, answered: bool) -> str:
        keys.append((key, answered))
        return ""

    sample = await measure(sign, 50, answered=True)
    assert isinstance(sample, Sample)
    assert sample.urls == 50
    assert sample.seconds > 0
    assert len(set(keys)) == 50
    assert all(answered for _, answered in keys)
