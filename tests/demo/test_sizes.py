from __future__ import annotations

import pytest

from gateway.demo.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1_048_576),
        ("7B", 7),
        ("3kB", 3_000),
        ("500MB", 500_000_000),
        ("2GB", 2_000_000_000),
        ("1TB", 1_000_000_000_000),
        ("3KiB", 3_072),
        ("64MiB", 67_108_864),
        ("1GiB", 1_073_741_824),
        ("1TiB", 1_099_511_627_776),
        ("64mib", 67_108_864),
        (" 5 GiB ", 5_368_709_120),
    ],
)
def test_sizes_are_whole_numbers_with_or_without_a_unit(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", " ", "MiB", "-1", "+1", "1.5GiB", "1e9", "10 Mb/s", "5 XiB", "5Gi", "٣", "1\n2"])
def test_what_is_no_size_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size: .*64MiB") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
