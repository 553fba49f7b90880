"""`algorithm: NAME` becomes stages and their settings, before anything is checked: from mapping to mapping.

What is written wins over what the algorithm says; of a spec in layers, what a layer's algorithm says wins over what the
layers below have written (`give_way`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from .catalog import OF_THE_POLICY, OF_THE_SPEC, OPTIMIZER, RECIPES, ROLES, Config, Recipe, Role

TAGS = ("kind", "method")  # a key that says which other keys a mapping has
BEGINNINGS = ("pairs", "roll")  # roles that read the data
CRITIC = {"head": "value"}  # what of a model's description makes it one that tells values
EARLIER = "version_of"  # the key that makes it a version of another model


def expand(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pipeline without `algorithm`, with all that it stands for. One that validation will refuse, be it for what
    it says as `algorithm` or for its shape, comes back as it was."""
    recipe = recipe_of(raw)
    if recipe is None or not _is_readable(raw):
        return raw
    cast = _Cast(recipe, dict(raw["models"]), [dict(stage) for stage in raw.get("stages") or ()])
    cast.assemble(raw.get("data"))
    kept = {key: value for key, value in raw.items() if key != "algorithm"}
    return kept | {"models": cast.models, "stages": cast.stages}


def give_way(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The pipeline without the settings that the algorithm `name` of a layer above it says otherwise: of those that
    belong to one kind of loss or one method, all."""
    recipe = RECIPES.get(name)
    if recipe is None or not _is_readable(raw):
        return raw
    cast = _Cast(recipe, dict(raw["models"]), [dict(stage) for stage in raw.get("stages") or ()])
    for role, said in recipe.config.items():
        for stage in cast.playing(role):
            config = stage.get("config") or {}
            taken = set(config) - set(OF_THE_SPEC) if "method" in said else set(said)
            if taken & set(config):
                stage["config"] = {key: value for key, value in config.items() if key not in taken}
    return {**raw, "stages": cast.stages}


def recipe_of(raw: Mapping[str, Any]) -> Recipe | None:
    """What `algorithm` names, if there is such a one."""
    name = raw.get("algorithm")
    return RECIPES.get(name) if isinstance(name, str) else None


def is_draft(stage: Mapping[str, Any]) -> bool:
    """Whether a stage is one that the algorithm makes, with some of its keys written: by its id, and without an
    operator."""
    return stage.get("op") is None and stage.get("id") in ROLES


def _is_readable(raw: Mapping[str, Any]) -> bool:
    stages, models = raw.get("stages"), raw.get("models")
    if not isinstance(models, Mapping) or not isinstance(stages, list | tuple | None):
        return False
    return all(isinstance(stage, Mapping) and _has_shape(stage) for stage in stages or ())


def _has_shape(stage: Mapping[str, Any]) -> bool:
    """Whether what is asked of a stage here is of the kind that it has to be of."""
    is_named = all(isinstance(stage.get(key), str | None) for key in ("id", "op", "model"))
    is_whole = isinstance(stage.get("config"), Mapping | None) and isinstance(stage.get("writes"), list | tuple | None)
    return is_named and is_whole


@dataclass(slots=True)
class _Cast:
    """Who plays which role of an algorithm. `stages`, `models`: a pipeline's, which are its own to change."""

    recipe: Recipe
    models: dict[str, Any]
    stages: list[dict[str, Any]]

    @property
    def policy(self) -> str:
        """The model that is trained: the one that samples, else the first that a stage trains, else the only one."""
        sampling = [stage.get("model") for stage in self.stages if stage.get("op") == ROLES["roll"].op]
        trained = [stage.get("model") for stage in self.stages if stage.get("op") == ROLES["learn"].op]
        named = [str(name) for name in (*sampling, *trained) if name and not self._is_critic(name)]
        others = [name for name, model in self.models.items() if not (self._is_critic(name) or _is_earlier(model))]
        return named[0] if named else (others[0] if len(others) == 1 else "policy")

    def _is_critic(self, name: Any) -> bool:
        model = self.models.get(name)
        return isinstance(model, Mapping) and CRITIC.items() <= model.items()

    def plays(self, stage: Mapping[str, Any], name: str) -> bool:
        role = ROLES[name]
        if is_draft(stage):
            return stage.get("id") == name
        if stage.get("op") != role.op:
            return bool(role.writes) and role.writes in (stage.get("writes") or ())
        if role.model in ("reference", "teacher"):
            return stage.get("model") != self.policy
        return role.op != ROLES["learn"].op or self._is_critic(stage.get("model")) == (role.model == "critic")

    def playing(self, name: str) -> Iterator[dict[str, Any]]:
        return (stage for stage in self.stages if self.plays(stage, name))

    def assemble(self, data: Any) -> None:
        """Fill in what is said of those that are there, and make those that are not."""
        written = [stage for stage in self.stages if is_draft(stage)]
        drafts = {stage["id"]: stage for stage in reversed(written)}
        again = [stage for stage in written if drafts[stage["id"]] is not stage]
        self.stages = [stage for stage in self.stages if not is_draft(stage)]
        for name in self.recipe.roles:
            self._settle(name, self._said(name, data), drafts)
        if any(_asks_reference(stage) for stage in self.stages):
            self._settle("ref", {}, drafts)
        self.stages += [*drafts.values(), *again]  # no stages of this algorithm: validation will say what is wrong

    def _said(self, name: str, data: Any) -> Config:
        """The settings that a stage of this role has where none are written."""
        said = self.recipe.config.get(name, {})
        if name in BEGINNINGS and isinstance(data, Mapping) and len(data) == 1:
            return {"data": next(iter(data)), **said}
        if name == "learn":
            return {**said, "optimizer": OPTIMIZER}
        if name == "critic":
            learn: Config = next(self.playing("learn")).get("config") or {}
            return {**{key: value for key, value in learn.items() if key not in OF_THE_POLICY}, **said}
        return said

    def _settle(self, name: str, said: Config, drafts: dict[str, dict[str, Any]]) -> None:
        """Have a role played, by a stage that is made if there is none, with what is said where nothing is written."""
        playing = list(self.playing(name)) or [self._make(name, drafts.pop(name, {}))]
        for stage in playing:
            if stage.get("op") == ROLES[name].op and said:
                stage["config"] = filled(stage.get("config"), said)

    def _make(self, name: str, draft: Mapping[str, Any]) -> dict[str, Any]:
        role = ROLES[name]
        stage = {"id": name, "op": role.op}
        if role.model:
            stage["model"] = draft.get("model") or self._model(role)
        stage |= {key: value for key, value in draft.items() if key not in stage}
        self.stages.insert(self._place(name), stage)
        return stage

    def _place(self, name: str) -> int:
        """Behind the last of the stages whose roles come before, else in front of those whose roles come after."""
        order = list(ROLES)
        ranks = [[order.index(other) for other in ROLES if self.plays(stage, other)] for stage in self.stages]
        before = [at for at, found in enumerate(ranks) if found and max(found) < order.index(name)]
        after = [at for at, found in enumerate(ranks) if found and min(found) > order.index(name)]
        return before[-1] + 1 if before else (after[0] if after else len(self.stages))

    def _model(self, role: Role) -> str:
        """The model of a stage that is made; one that is missing is made of the policy's own weights."""
        if role.model == "policy":
            return self.policy
        if role.model == "critic":
            known = [name for name in self.models if self._is_critic(name)]
            if known:
                return known[0]
        policy = self.models.get(self.policy)
        if role.model == "teacher":  # who teaches knows more than the policy's own weights
            return role.model
        if role.model not in self.models and isinstance(policy, Mapping):
            own = {key: value for key, value in policy.items() if key != "lora"}
            self.models[role.model] = {**own, **(CRITIC if role.model == "critic" else {})}
        return role.model


def filled(written: Config | None, said: Config) -> dict[str, Any]:
    """What is written, and beside it what is said of keys that are not; nothing, where another kind is written."""
    found = dict(written or {})
    if any(found.get(tag) is not None and found[tag] != said.get(tag) for tag in TAGS):
        return found
    for key, value in said.items():
        if key not in found:
            found[key] = deepcopy(value)  # the tables stay as they are
        elif isinstance(value, Mapping) and isinstance(found[key], Mapping) and _has_tag(value):
            found[key] = filled(found[key], value)
    return found


def _is_earlier(model: Any) -> bool:
    """Whether a model is a version of another one, and so trained by no stage."""
    return isinstance(model, Mapping) and model.get(EARLIER) is not None


def _has_tag(said: Config) -> bool:
    return any(tag in said for tag in TAGS)


def _asks_reference(stage: Mapping[str, Any]) -> bool:
    """Whether a training, or an advantage, holds the policy near another model."""
    config = stage.get("config") or {}
    loss = config.get("loss")
    settings: Sequence[Any] = [config] if stage.get("op") == ROLES["adv"].op else [loss]
    return any(isinstance(each, Mapping) and _is_above_zero(each.get("kl")) for each in settings)


def _is_above_zero(value: Any) -> bool:
    """As far as one can tell before expressions are read."""
    if isinstance(value, str):
        try:
            return float(value) > 0
        except ValueError:
            return True
    return isinstance(value, int | float) and value > 0
