"""Prices are the user's: what is wrong with them is told before the mesh is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.errors import CliError
from dflow_cli.report.prices import pricing


def test_a_file_gives_each_node_its_price(tmp_path: Path) -> None:
    """YAML or TOML, whatever is at hand."""
    for name, text in (("p.yaml", "n0: 2.5\nn1: 0\n"), ("p.toml", "n0 = 2.5\nn1 = 0\n")):
        file = tmp_path / name
        file.write_text(text)
        price_of = pricing(None, file)
        assert price_of is not None
        assert (price_of("n0"), price_of("n1")) == (2.5, 0.0)


def test_one_price_is_that_of_all() -> None:
    """And without any there are no costs."""
    price_of = pricing(1.25, None)
    assert price_of is not None
    assert price_of("anybody") == 1.25
    assert pricing(None, None) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.yaml", "n0: [", "cannot be read"),
        ("p.toml", "n0: 1", "cannot be read"),
        ("p.yaml", "- n0\n", "no prices are in it"),
        ("p.yaml", "", "no prices are in it"),
        ("p.yaml", "n0: 2 EUR\n", "`2 EUR` is no price an hour"),
        ("p.yaml", "n0: -1\n", "`-1` is no price an hour"),
        ("p.yaml", "n0: .inf\n", "`inf` is no price an hour"),
        ("p.yaml", "n0: true\n", "`True` is no price an hour"),
        ("p.yaml", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_has_no_prices_is_named(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    """Before any daemon is asked."""
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CliError) as caught:
        pricing(None, file)
    assert said in caught.value.what
    assert str(file) in caught.value.where
    assert caught.value.hint


def test_a_node_without_a_price_is_named(tmp_path: Path) -> None:
    """A sum that leaves one out would be too low, and nobody would see it."""
    file = tmp_path / "p.yaml"
    file.write_text("n0: 1\n")
    price_of = pricing(None, file)
    assert price_of is not None
    with pytest.raises(CliError) as caught:
        price_of("n1")
    assert (caught.value.what, caught.value.hint) == ("no price for `n1`", "add a line for it; it names n0")


@pytest.mark.parametrize(("price", "said"), [(-1.0, "no price an hour"), (float("nan"), "no price an hour")])
def test_a_price_that_is_none_is_refused(price: float, said: str) -> None:
    """On the command line too."""
    with pytest.raises(CliError) as caught:
        pricing(price, None)
    assert said in caught.value.what


def test_two_prices_are_one_too_many() -> None:
    """Which of them counts would be a guess."""
    with pytest.raises(CliError) as caught:
        pricing(1.0, Path("p.yaml"))
    assert caught.value.what == "--prices and --price-per-hour are two prices"
