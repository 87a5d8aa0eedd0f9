"""One error, three shapes."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Family, GatewayError, render, unauthorized, unavailable

LICENCE = {"license": "https://example.org/licence", "accept": "https://h/downloads/x?acceptLicense=true"}


def rendered(error: GatewayError, family: Family) -> tuple[str, Any]:
    media_type, body = render(error, family, request_id="r-1")
    return media_type, json.loads(body)


class TestRender:
    def test_regards(self) -> None:
        error = GatewayError(HTTPStatus.FORBIDDEN, "You have no right to this product.")
        assert rendered(error, Family.REGARDS) == (
            "application/json",
            {"messages": ["You have no right to this product."]},
        )

    def test_stac(self) -> None:
        error = GatewayError(HTTPStatus.TOO_MANY_REQUESTS, "Too much.", code="QuotaExceeded")
        assert rendered(error, Family.STAC) == (
            "application/json",
            {"code": "QuotaExceeded", "description": "Too much."},
        )

    def test_problem(self) -> None:
        error = GatewayError(HTTPStatus.NOT_FOUND, "There is nothing at this path.")
        assert rendered(error, Family.PROBLEM) == (
            "application/problem+json",
            {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "There is nothing at this path.",
                "code": "NotFound",
                "instance": "urn:request:r-1",
            },
        )

    def test_a_body_of_its_own_replaces_that_of_regards_and_is_added_to_the_others(self) -> None:
        error = GatewayError(HTTPStatus.LOCKED, "Accept first.", code="LicenseNotAccepted", body=LICENCE)
        assert rendered(error, Family.REGARDS)[1] == LICENCE
        assert rendered(error, Family.STAC)[1] == {
            "code": "LicenseNotAccepted",
            "description": "Accept first.",
            **LICENCE,
        }
        problem = rendered(error, Family.PROBLEM)[1]
        assert LICENCE.items() <= problem.items()
        assert (problem["status"], problem["title"], problem["detail"]) == (423, "Locked", "Accept first.")

    def test_an_empty_body_is_none(self) -> None:
        assert rendered(GatewayError(HTTPStatus.LOCKED, "x", body={}), Family.REGARDS)[1] == {"messages": ["x"]}

    @pytest.mark.parametrize("family", Family)
    def test_text_is_utf_8_and_what_has_no_utf_8_is_replaced(self, family: Family) -> None:
        _, body = render(GatewayError(HTTPStatus.NOT_FOUND, "Île 北京 \ud800 \0 \n"), family, request_id="r")
        assert "Île 北京 ? ".encode() in body
        assert b"\n" not in body
        json.loads(body)

    @given(
        st.sampled_from(list(Family)), st.text(st.characters()), st.dictionaries(st.text(), st.text(st.characters()))
    )
    def test_any_text_gives_one_json_object(self, family: Family, text: str, body: dict[str, str]) -> None:
        error = GatewayError(HTTPStatus.BAD_REQUEST, text, code=text, body=body)
        media_type, rendering = render(error, family, request_id="r")
        assert media_type in ("application/json", "application/problem+json")
        assert isinstance(json.loads(rendering), dict)


class TestGatewayError:
    @pytest.mark.parametrize(
        ("status", "code", "title"),
        [
            (400, "BadRequest", "Bad Request"),
            (401, "Unauthorized", "Unauthorized"),
            (405, "MethodNotAllowed", "Method Not Allowed"),
            (410, "Gone", "Gone"),
            (412, "PreconditionFailed", "Precondition Failed"),
            # Python renamed these in 3.13; a program that reads codes must not notice. Names of RFC 9110.
            (413, "ContentTooLarge", "Content Too Large"),
            (414, "UriTooLong", "URI Too Long"),
            (416, "RangeNotSatisfiable", "Range Not Satisfiable"),
            (422, "UnprocessableContent", "Unprocessable Content"),
            (423, "Locked", "Locked"),
            (429, "TooManyRequests", "Too Many Requests"),
            (431, "RequestHeaderFieldsTooLarge", "Request Header Fields Too Large"),
            (500, "InternalServerError", "Internal Server Error"),
            (502, "BadGateway", "Bad Gateway"),
            (503, "ServiceUnavailable", "Service Unavailable"),
        ],
    )
    def test_code_and_title_are_the_same_with_every_python(self, status: int, code: str, title: str) -> None:
        error = GatewayError(HTTPStatus(status), "x")
        assert error.code == code
        assert rendered(error, Family.PROBLEM)[1]["title"] == title

    def test_it_is_an_exception_that_says_its_detail(self) -> None:
        error = GatewayError(HTTPStatus.GONE, "It is gone.")
        assert str(error) == "It is gone."
        assert error != GatewayError(HTTPStatus.GONE, "It is gone.")
        assert len({error, error}) == 1

    def test_errors_share_no_headers(self) -> None:
        first, second = GatewayError(HTTPStatus.GONE, "x"), GatewayError(HTTPStatus.GONE, "x")
        assert first.headers == {}
        assert first.headers is not second.headers

    def test_unauthorized_has_a_challenge(self) -> None:
        assert unauthorized("x").headers == {"WWW-Authenticate": 'Bearer realm="downloads"'}
        error = unauthorized("x", error="invalid_token")
        assert error.status is HTTPStatus.UNAUTHORIZED
        assert error.headers == {"WWW-Authenticate": 'Bearer realm="downloads", error="invalid_token"'}

    def test_unavailable_says_when_to_come_back(self) -> None:
        error = unavailable("x")
        assert (error.status, error.code, error.headers) == (503, "ServiceUnavailable", {"Retry-After": "5"})
        error = unavailable("x", retry_after=300, code="NoStorage")
        assert (error.code, error.headers) == ("NoStorage", {"Retry-After": "300"})
