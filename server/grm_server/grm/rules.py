"""The stop rules: their parameters, and what the rest of the code needs to know of each. `stopping` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal

EarlyRuleName = Literal["decided", "strict", "precision"]
RuleName = Literal["fixed", EarlyRuleName]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Draw all k samples."""

    name: ClassVar[RuleName] = "fixed"
    looks_early: ClassVar[bool] = False
    """It looks at the samples before full k, so they are drawn in waves."""
    judges_singles: ClassVar[bool] = False
    """It can stop a request with a single response early, although there is nothing to decide."""
    exchangeable_orders: ClassVar[bool] = False
    """It needs each order drawn independently instead of a balanced design."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Stop when the remaining samples would probably not change the decision (predictive stochastic curtailment)."""

    name: ClassVar[RuleName] = "decided"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = False
    gamma: float
    """Highest accepted probability of another decision at full k, as predicted, 0..1."""
    target: Literal["best", "ranking"] = "best"


@dataclass(frozen=True, slots=True)
class Strict:
    """Stop when the best response at full k is certain up to delta, for any distribution of the scores."""

    name: ClassVar[RuleName] = "strict"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = True
    delta: float
    """Bound on the probability of naming another response than at full k, over the random order of the k samples,
    0..1."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Stop when every reward's standard error is small enough."""

    name: ClassVar[RuleName] = "precision"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = True
    exchangeable_orders: ClassVar[bool] = False
    se: float
    """In points of the reward's scale."""


StopRule = Fixed | Decided | Strict | Precision
RULES: Mapping[RuleName, type[StopRule]] = MappingProxyType(
    {"fixed": Fixed, "decided": Decided, "strict": Strict, "precision": Precision}
)
"""To add a rule, add its class and a row here, its decision in `stopping.decide`, and its parameters in the API schema
and in `settings`."""


def rule_named(name: RuleName, parameters: Mapping[str, Any]) -> StopRule:
    """The rule, built from the parameters that match its field names; the others are ignored."""
    rule = RULES[name]
    return rule(**{field.name: parameters[field.name] for field in fields(rule) if field.name in parameters})
