"""``gateway orders``, and what the doctor finds of the mail server."""

from __future__ import annotations

from pathlib import Path

from gateway.config import Mail
from gateway.doctor.mail import look_at_mail
from tests.canaries import CANARIES
from tests.commands.support import Stand, findings, problems, run, warnings
from tests.notices.mailbox import Mailbox, free_port
from tests.notices.support import PASSWORD, mail_with
from tests.s3.strict.certificate import server_context

SOME = """
INSERT INTO notices (channel, tenant, order_id, kind, body, tries, error, given_up_at)
VALUES ('mail', 'esa', 7, 'done', '{}', 0, NULL, NULL), ('mail', 'esa', 8, 'done', '{}', 2, '451 busy', NULL),
       ('webhook:portal', 'esa', 9, 'failed', '{}', 3, '410: gone', now())"""


async def test_notices_are_shown_and_tried_again(stand: Stand) -> None:
    config = stand.configure()
    assert (await run("orders", "notices", "--config", config)).output == ""
    await stand.catalogue.connection.execute(SOME)
    shown = (await run("orders", "notices", "--config", config)).output.splitlines()
    assert shown[0].startswith("mail: 2 wait since 20")
    assert shown[0].endswith(", 0 given up")
    assert shown[1:] == [
        "webhook:portal: 0 wait, 1 given up",
        "3 webhook:portal esa order 9 failed: given up after 3: 410: gone",
        "2 mail esa order 8 done: tried again after 2: 451 busy",
    ]
    shown = (await run("orders", "notices", "--config", config, "--again")).output.splitlines()
    assert shown[0] == "1 are tried again"
    assert shown[2].startswith("webhook:portal: 1 wait since 20")


async def test_the_mail_server_is_looked_at_and_nothing_is_sent(tmp_path: Path) -> None:
    CANARIES.hide("password of the mail server", PASSWORD)
    context, authority = server_context(tmp_path)
    box = Mailbox(free_port(), login=("downloads", PASSWORD))

    def settings(**options: object) -> Mail:
        return mail_with(box.port, **{"user": "downloads", "password": PASSWORD, "ca_file": authority, **options})

    async with box.opened(context):
        (found,) = await findings(look_at_mail(settings()))
        assert (found.level, found.text) == ("ok", "takes mails, and lets us log in")
        (wrong,) = problems(await findings(look_at_mail(settings(password="wrong"))))
        assert wrong == "cannot be used: the server does not let us log in (535)"
        (wrong,) = problems(await findings(look_at_mail(settings(ca_file=None))))
        assert "certificate" in wrong.lower()
        assert warnings(await findings(look_at_mail(settings(ca_file=None, verify=False)))) == [
            "its certificate is not looked at"
        ]
    (wrong,) = problems(await findings(look_at_mail(settings())))
    assert wrong.startswith("cannot be used: ")
    (wrong,) = problems(await findings(look_at_mail(settings(templates=tmp_path / "none"))))
    assert wrong == f"templates: {tmp_path / 'none'} is no folder"
    assert box.mails == []
