"""The catalogue as `gateway conformance` sees it, which walks to a download by itself."""

from __future__ import annotations

from pathlib import Path

from tests.commands.support import outcomes, run
from tests.harness import SCIENTIST, token
from tests.stac.conftest import Archive

OF_REDIRECTS = {"a redirect names an absolute URI", "a redirect needs no token where it leads"}
OF_TOKENS = {"no token is an exception"}


async def test_every_root_has_the_class(archive: Archive, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(SCIENTIST), encoding="ascii")
    plain, of_tenant = archive.gateway.url, f"{archive.gateway.url}/tenants/esa"
    for root, options, skipped in (
        (plain, ["--collection", "scenes", "--item", "near", "--asset", "visual"], OF_REDIRECTS | OF_TOKENS),
        (of_tenant, ["--collection", "scenes", "--item", "far"], OF_TOKENS),
        (plain, ["--token-file", file, "--collection", "restricted"], OF_REDIRECTS),
    ):
        done = await run("conformance", root, *options)
        found = outcomes(done)
        assert (done.exit_code, found["fail"], found["warning"]) == (0, set(), set()), done.output
        assert found["skip"] == skipped, done.output
    done = await run("conformance", of_tenant)
    assert (done.exit_code, outcomes(done)["fail"]) == (0, set()), done.output
