"""What is asked of drawn worlds; whatever is left open is drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass

from ..faults import FAULTS
from ..model.work import NOISY, PURE, WILD

ENGINES = {"pure": PURE, "noisy": NOISY, "wild": WILD, "poison": NOISY}
"""Which works give other bytes each time. With `poison` one partition of a chain breaks on every machine, too."""
WORKS = ("run", "none")
CALM_AFTER_S = 12.0  # when everything heals, and from when on the run must end
TROUBLE_S = 5.0  # faults fall within so long after the submit: most of an undisturbed run


@dataclass(frozen=True)
class Choice:
    """`faults`: just these are drawn, as often as any; None: the usual mix. `work`: `none` has no run, and looks at
    membership alone. `virtual_s`: how long a world lives until everything heals; faults fall in its first part.
    `mutation`: the rule that is broken in it."""

    nodes: int | None = None
    faults: tuple[str, ...] | None = None
    engine: str | None = None
    work: str = "run"
    virtual_s: float = CALM_AFTER_S
    mutation: str | None = None

    def __post_init__(self) -> None:
        assert set(self.faults or ()) <= FAULTS.keys(), f"no such faults: {self.faults}"
        assert self.engine is None or self.engine in ENGINES, f"no such engine: {self.engine}"
        assert self.work in WORKS, f"no such work: {self.work}"

    @property
    def trouble_s(self) -> float:
        return self.virtual_s * TROUBLE_S / CALM_AFTER_S

    @property
    def varies(self) -> bool:
        """Whether runs are of all sorts and sizes: where faults are named they are the small usual ones."""
        return self.faults is None

    @property
    def poisons(self) -> bool:
        return self.engine == "poison" or (self.faults is not None and "poison" in self.faults)

    def command(self, seed: int) -> str:
        """What is typed to see one of these worlds again."""
        words = ["dflow sim", f"--first-seed {seed}"]
        words += [f"--nodes {self.nodes}"] if self.nodes is not None else []
        words += [f"--faults {','.join(self.faults) or 'none'}"] if self.faults is not None else []
        words += [f"--engine {self.engine}"] if self.engine is not None else []
        words += [f"--work {self.work}"] if self.work != "run" else []
        words += [f"--virtual-seconds {self.virtual_s:g}"] if self.virtual_s != CALM_AFTER_S else []
        words += [f"--mutation {self.mutation}"] if self.mutation is not None else []
        return " ".join(words)


USUAL = Choice()
