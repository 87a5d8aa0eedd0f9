from __future__ import annotations

import re
import time
import unicodedata
from typing import Literal
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.disposition import MAX_BYTES, content_disposition, safe_filename

VALUE = re.compile(
    r"""(attachment|inline); filename="([^"\\]*)"(?:; filename\*=UTF-8''([A-Za-z0-9!#$&+\-.^_`|~%]+))?"""
)
FORBIDDEN = set('/\\:*?"<>|') | {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
DEVICES = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789"}


def names(value: str) -> tuple[str, str]:
    """The filename a client without RFC 8187 takes, and the one a client with it takes."""
    found = VALUE.fullmatch(value)
    assert found, value
    return found[2], unquote(found[3], errors="strict") if found[3] else found[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("a.tif", 'attachment; filename="a.tif"', id="RFC 6266 4.3: ASCII needs no filename*"),
        pytest.param("a b.tif", 'attachment; filename="a b.tif"', id="RFC 6266 4.3: spaces stand in quotes"),
        pytest.param("a;b,c=d'.tif", 'attachment; filename="a;b,c=d\'.tif"', id="RFC 9110 5.6.4: delimiters in quotes"),
        pytest.param(
            "Zürich.tif",
            "attachment; filename=\"Zurich.tif\"; filename*=UTF-8''Z%C3%BCrich.tif",
            id="RFC 8187 3.2: accents",
        ),
        pytest.param(
            "Zu\u0308rich.tif",
            "attachment; filename=\"Zurich.tif\"; filename*=UTF-8''Zu%CC%88rich.tif",
            id="RFC 8187 3.2: accents written apart",
        ),
        pytest.param(
            "衛星.zip",
            "attachment; filename=\"__.zip\"; filename*=UTF-8''%E8%A1%9B%E6%98%9F.zip",
            id="RFC 8187 3.2: no letters of ASCII",
        ),
        pytest.param(
            "€ rates.csv",
            "attachment; filename=\"_ rates.csv\"; filename*=UTF-8''%E2%82%AC%20rates.csv",
            id="RFC 6266 5: the example of the RFC",
        ),
        pytest.param(
            "50%25.txt",
            "attachment; filename=\"50_25.txt\"; filename*=UTF-8''50%2525.txt",
            id="RFC 6266 D: nothing that looks percent-encoded",
        ),
        pytest.param("100% a.txt", 'attachment; filename="100% a.txt"', id="RFC 6266 D: a percent sign alone"),
        pytest.param(
            "é'(1)*.txt",
            "attachment; filename=\"e'(1)_.txt\"; filename*=UTF-8''%C3%A9%27%281%29_.txt",
            id="RFC 8187 3.2.1: what is no attr-char is encoded",
        ),
    ],
)
def test_field(name: str, value: str) -> None:
    assert content_disposition(name) == value


def test_inline() -> None:
    assert content_disposition("a.png", "inline") == 'inline; filename="a.png"'


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        pytest.param("", "download", id="empty"),
        pytest.param("...", "download", id="dots"),
        pytest.param(" . . ", "download", id="dots and spaces"),
        pytest.param("\u202e\u200b\x00", "download", id="nothing visible"),
        pytest.param("../../etc/passwd", "_.._etc_passwd", id="path up"),
        pytest.param("/etc/passwd", "_etc_passwd", id="absolute path"),
        pytest.param("C:\\boot.ini", "C__boot.ini", id="Windows path"),
        pytest.param("a.txt:stream", "a.txt_stream", id="NTFS stream"),
        pytest.param('a"; filename="b.exe', "a_; filename=_b.exe", id="quotes"),
        pytest.param("a\r\nSet-Cookie: x=y", "aSet-Cookie_ x=y", id="header injection"),
        pytest.param("a\x00.txt", "a.txt", id="null"),
        pytest.param("a\x85\x9fb\x7f", "ab", id="C1 controls and DEL"),
        pytest.param("a\u2028\u2029b", "ab", id="line and paragraph separators"),
        pytest.param("report\u202efdp.exe", "reportfdp.exe", id="right-to-left override"),
        pytest.param("a\u2066b\u2069", "ab", id="isolates"),
        pytest.param("a\ud800b\udcff", "a_b_", id="lone surrogates"),
        pytest.param(".bashrc", "bashrc", id="hidden file"),
        pytest.param("a.txt. .", "a.txt", id="trailing dots and spaces"),
        pytest.param("CON", "_CON", id="device"),
        pytest.param("nul.tar.gz", "_nul.tar.gz", id="device with extensions"),
        pytest.param("Com1 .txt", "_Com1 .txt", id="device, a space and an extension"),
        pytest.param("LPT¹", "_LPT¹", id="device with a superscript"),
        pytest.param("CONSOLE.txt", "CONSOLE.txt", id="only begins like a device"),
        pytest.param("COM10", "COM10", id="no device"),
        pytest.param("S2A_MSIL2A_20260301T100021.SAFE.zip", "S2A_MSIL2A_20260301T100021.SAFE.zip", id="a product"),
        pytest.param("می\u200cخواهم.txt", "می\u200cخواهم.txt", id="a joiner that spelling needs"),
        pytest.param("x" * 255, "x" * 255, id="255 bytes"),
        pytest.param("x" * 256, "x" * 255, id="256 bytes"),
        pytest.param("x" * 300 + ".tif", "x" * 251 + ".tif", id="too long, the extension stays"),
        pytest.param("é" * 200 + ".tif", "é" * 125 + ".tif", id="cut between characters"),
        pytest.param("🛰" * 100, "🛰" * 63, id="cut between characters of four bytes"),
        pytest.param("a." + "x" * 300, "a." + "x" * 253, id="too long to be an extension"),
        pytest.param("a" * 200 + " " * 100 + ".tif", "a" * 200 + ".tif", id="no space left by the cut"),
        pytest.param("CON" + " " * 300 + ".txt", "_CON.txt", id="a device made by the cut"),
        pytest.param("NUL." + "x" * 251, "_NUL." + "x" * 250, id="a device of 255 bytes"),
    ],
)
def test_safe_filename(name: str, safe: str) -> None:
    assert safe_filename(name) == safe


@pytest.mark.parametrize(
    ("name", "fallback"),
    [
        pytest.param("ＣＯＮ.txt", "_CON.txt", id="a device in full-width letters"),
        pytest.param("a\uff0fb", "a_b", id="full-width solidus"),
        pytest.param("\u2024\u2024\u2044x", "___x", id="dots and a slash by compatibility"),
        pytest.param("℀.txt", "_.txt", id="a ligature that holds a slash"),
        pytest.param("½.txt", "_.txt", id="a fraction that would become 12"),
        pytest.param("%４１", "_41", id="percent-encoded by compatibility"),
    ],
)
def test_the_fallback_is_as_safe_as_the_name(name: str, fallback: str) -> None:
    assert names(content_disposition(name))[0] == fallback


def harmless(name: str) -> None:
    assert name
    assert len(name.encode()) <= MAX_BYTES
    assert not set(name) & (FORBIDDEN | BIDI)
    assert name.strip(" .") == name
    assert name.partition(".")[0].rstrip(" ").upper() not in DEVICES
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


any_text = st.one_of(
    st.text(st.characters(exclude_categories=())),  # lone surrogates too
    st.text('./\\: %"CONnul1\u202e\ud800é\u0301Ａ'),
    st.builds(str.__mul__, st.text(st.characters(exclude_categories=()), max_size=4), st.integers(0, 300)),
)


@given(any_text, st.sampled_from(["attachment", "inline"]))
@example("%" * 300 + "é", "attachment")
@example("CON" + " " * 248 + ".txt", "inline")
def test_any_text_gives_a_safe_field(name: str, kind: Literal["attachment", "inline"]) -> None:
    safe = safe_filename(name)
    harmless(safe)
    assert safe_filename(safe) == safe

    value = content_disposition(name, kind)
    assert value.isascii()
    assert value.isprintable()
    fallback, extended = names(value)
    harmless(fallback)
    assert not re.search("%[0-9A-Fa-f]{2}", fallback)
    assert extended == safe
    assert value.startswith(kind)


@pytest.mark.parametrize(
    "name", ["." * 10**5, " ." * 10**5, "%4" * 10**5, "CON " * 10**5, "\u202e" * 10**5, "ﷺ" * 10**5]
)
def test_long_names_take_linear_time(name: str) -> None:
    before = time.process_time()
    content_disposition(name)
    assert time.process_time() - before < 1
