"""What a node costs an hour, as the user says: one price for all, or a file with a price by name."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..errors import CliError

PriceOf = Callable[[str], float]  # an hour, by a node's name
_HINT = "a line a node, such as `n0: 1.20` (YAML) or `n0 = 1.20` (TOML), in any one currency"


def pricing(price: float | None, file: Path | None) -> PriceOf | None:
    """The price an hour of a node by its name; None where none is given. Raises CliError for what is no price; when it
    is asked for a node that the file does not name, that raises it too."""
    if price is not None and file is not None:
        hint = "leave one of them out; in a file every node has a price of its own"
        raise CliError("--prices and --price-per-hour are two prices", where="--prices", hint=hint)
    if file is not None:
        return partial(_price_of, prices=read_prices(file), file=file)
    if price is not None:
        known = check_price(price, "--price-per-hour")
        return lambda node: known
    return None


def read_prices(path: Path) -> Mapping[str, float]:
    """Node name -> price an hour. Raises CliError for what is no such file."""
    try:
        text = path.read_bytes()
        told: Any = tomllib.loads(text.decode()) if path.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CliError(f"cannot be read: {error}", where=str(path), hint=_HINT) from None
    if not isinstance(told, dict) or not told:
        raise CliError("no prices are in it", where=str(path), hint=_HINT)
    return {str(node): check_price(price, f"{path}: {node}") for node, price in told.items()}


def check_price(price: object, where: str) -> float:
    """Raises CliError for what is no price."""
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
        raise CliError(f"`{price}` is no price an hour", where=where, hint="a number of 0 or more, without a currency")
    return float(price)


def _price_of(node: str, prices: Mapping[str, float], file: Path) -> float:
    if node not in prices:
        named = ", ".join(sorted(prices)[:8])
        raise CliError(f"no price for `{node}`", where=str(file), hint=f"add a line for it; it names {named}")
    return prices[node]
