"""What S3 says when it refuses, in terms of storages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.storage import CopyNotFoundError, CopyOfflineError, CopyUnavailableError, StorageError
from storage_plugins.s3.refusals import error_code, explanation, refuses_credentials
from storage_plugins.staging import RefusedError


def body(code: str, message: str = "Told at length") -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'.encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", CopyNotFoundError),
        (404, "NoSuchBucket", CopyNotFoundError),
        (400, "KeyTooLongError", CopyNotFoundError),
        (403, "InvalidObjectState", CopyOfflineError),
        (403, "AccessDenied", RefusedError),
        (403, "SignatureDoesNotMatch", CopyUnavailableError),
        (403, "InvalidAccessKeyId", CopyUnavailableError),
        (403, "RequestTimeTooSkewed", CopyUnavailableError),
        (400, "ExpiredToken", CopyUnavailableError),
        (503, "SlowDown", CopyUnavailableError),
        (500, "InternalError", CopyUnavailableError),
        (404, "SomethingNew", CopyUnavailableError),
    ],
)
def test_the_code_counts_and_is_told(status: int, code: str, kind: type[StorageError]) -> None:
    error = explanation("s3://bucket/key", status, {}, body(code))
    assert type(error) is kind
    assert str(error).startswith(f"s3://bucket/key: S3 answers {code}")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (404, b""),
        (503, b"<html>busy</html>"),
        (403, b"<Code></Code>"),
        (403, b"<Code>a b</Code>"),
        (412, body("PreconditionFailed")),
        (416, body("InvalidRange")),
    ],
)
def test_where_there_is_no_code_that_says_more_the_status_counts(status: int, answer: bytes) -> None:
    assert explanation("s3://bucket/key", status, {}, answer) is None


def test_a_bucket_elsewhere_is_told_with_its_region() -> None:
    told = explanation("s3://b/k", 301, {"x-amz-bucket-region": "eu-west-3"}, body("PermanentRedirect"))
    assert str(told) == "s3://b/k: S3 answers PermanentRedirect: the bucket is in the region eu-west-3"
    told = explanation("s3://b/k", 301, {"x-amz-bucket-region": "no\nregion"}, body("PermanentRedirect"))
    assert str(told) == "s3://b/k: S3 answers PermanentRedirect"


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (body("ExpiredToken", "The provided token has expired."), True),
        (body("InvalidAccessKeyId"), True),
        (body("InvalidToken"), True),
        (body("AccessDenied", "Request has expired"), True),
        (body("AccessDenied"), False),
        (body("SignatureDoesNotMatch"), False),
        (body("SlowDown"), False),
        (b"", False),
    ],
)
def test_other_credentials_help_against_some(answer: bytes, refused: bool) -> None:
    assert refuses_credentials(error_code(answer), answer) is refused


@given(st.integers(300, 599), st.binary() | st.text().map(body))
def test_nothing_that_is_sent_breaks_it_or_shows_more_than_a_code(status: int, answer: bytes) -> None:
    told = explanation("name", status, {}, answer)
    assert told is None or len(str(told)) < 200
    assert "\n" not in str(told)
