"""Whatever a provider publishes and when, keys are believed as long as the settings say, and no longer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Issuer
from gateway.errors import GatewayError
from gateway.identity.discovery import KeySet, NotFetchedError
from gateway.identity.keys import VerificationKey
from gateway.identity.rotation import RotatingKeys
from tests.identity.forge import ED_KEY, OTHER_RSA_KEY, RSA_KEY

KEYS = (
    VerificationKey(("RS256",), RSA_KEY.public_key(), "0"),
    VerificationKey(("RS256",), OTHER_RSA_KEY.public_key(), "1"),
    VerificationKey(("EdDSA",), ED_KEY.public_key(), "2"),
)
GRACE, MAX_STALE, COOL_DOWN = 100.0, 500.0, 30.0
SETTING = Issuer(
    issuer="https://idp.example.org",
    audience="a",
    algorithms=["RS256", "EdDSA"],
    grace=GRACE,
    max_stale=MAX_STALE,
    cool_down=COOL_DOWN,
)


@dataclasses.dataclass(frozen=True)
class Step:
    """Time passes, the provider publishes some keys or is away, and a token names a key."""

    seconds: float
    published: Sequence[int] | None
    fresh: float
    named: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0, 99.0, 100.0, 250.0, 600.0]),
        st.none() | st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
        st.sampled_from([60.0, 300.0]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@dataclasses.dataclass
class Provider:
    """What it answered, and when."""

    now: float = 1000.0
    step: Step | None = None
    asked: list[float] = dataclasses.field(default_factory=list)
    answered: list[tuple[float, Sequence[int], float]] = dataclasses.field(default_factory=list)

    async def fetch(self) -> KeySet:
        assert self.step is not None
        self.asked.append(self.now)
        if self.step.published is None:
            raise NotFetchedError("it is away")
        self.answered.append((self.now, self.step.published, self.step.fresh))
        return KeySet(tuple(KEYS[number] for number in self.step.published), self.step.fresh)

    def usable(self) -> bool:
        """Whether the last answer is recent enough."""
        return bool(self.answered) and self.now < self.answered[-1][0] + self.answered[-1][2] + MAX_STALE

    def believed(self, number: int) -> bool:
        """Whether a key is in the last answer, or vanished from one of them within the grace."""
        if number in self.answered[-1][1]:
            return True
        sets = [(when, number in keys) for when, keys, _ in self.answered]
        vanished = [when for (when, here), (_, before) in zip(sets[1:], sets, strict=False) if before and not here]
        return bool(vanished) and self.now < vanished[-1] + GRACE


async def follow(taken: Sequence[Step]) -> None:
    provider = Provider()
    keys = RotatingKeys(SETTING, provider.fetch, lambda: provider.now)
    for step in taken:
        provider.now += step.seconds
        provider.step = step
        algorithm = "EdDSA" if step.named == 2 else "RS256"
        try:
            found = await keys.find(str(step.named), algorithm)
        except GatewayError:
            assert not provider.usable()
            continue
        assert provider.usable()
        assert [trusted.key for trusted in found] == (
            [KEYS[step.named]] if step.named < 3 and provider.believed(step.named) else []
        )
        for trusted in found:
            assert 0 < trusted.seconds <= provider.answered[-1][0] + provider.answered[-1][2] + MAX_STALE - provider.now
        if not found and provider.asked[-1] != provider.now:
            assert provider.now < provider.asked[-1] + COOL_DOWN
    gaps = [after - before for before, after in zip(provider.asked, provider.asked[1:], strict=False)]
    assert all(gap >= COOL_DOWN for gap in gaps)


@settings(deadline=None, max_examples=200)
@given(steps)
def test_a_key_is_believed_while_it_is_published_and_for_its_grace(taken: list[Step]) -> None:
    asyncio.run(follow(taken))
