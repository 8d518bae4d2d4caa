"""Learned priors by API key, model, task tag and aggregate, stored in a file across restarts.

Each key learns from its own traffic only, so a hostile key cannot move the risk that another key's requests stop at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.priors import LearnedPrior, observe
from grm_server.grm.types import Aggregate, Failure, Floats, Layout, Prior, Trajectory

logger = logging.getLogger(__name__)

MAX_TASKS = 256
"""Limit on stored priors. Task tags come from clients, who may send any number of them."""
SAVE_EVERY_S = 30.0


class PriorKey(NamedTuple):
    model: str
    task: str
    aggregate: Aggregate
    tenant: str = ""
    """The name of the API key. Empty only in files from before priors were learned per key."""
    winners: bool = False
    """The judge names winners instead of scoring, which has other units."""


class _Row(BaseModel):
    model: str
    task: str
    aggregate: Aggregate
    tenant: str = ""
    winners: bool = False
    pair_variance: float = Field(gt=0)
    gap_variance: float = Field(gt=0)
    score_variance: float = Field(gt=0)
    weight: float = Field(ge=0)


class _File(BaseModel):
    priors: list[_Row]


class PriorStore:
    """Reads the file once; writes it periodically and on shutdown. Two servers should not share a file."""

    def __init__(self, path: Path) -> None:
        """A damaged file is renamed with a warning: priors can be learned again."""
        self._path = path
        self._learnt: dict[PriorKey, LearnedPrior] = {}
        """Least recently used first."""
        self._initial: dict[PriorKey, LearnedPrior] = {}
        """From an older file, which did not tell keys apart. Every key starts from them; no traffic changes them."""
        self._saved_s = time.monotonic()
        for row in self._read():
            prior = Prior(row.pair_variance, row.gap_variance, row.score_variance)
            table = self._learnt if row.tenant else self._initial
            table[PriorKey(row.model, row.task, row.aggregate, row.tenant, row.winners)] = LearnedPrior(
                prior, row.weight
            )
        self._check_writable()

    def _check_writable(self) -> None:
        """Warn at the start instead of at shutdown, when it is too late."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._draft.write_text("{}", "utf-8")
            self._draft.unlink()
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): learned priors will be lost at shutdown; see stopping.priors",
                self._path,
                error.strerror,
            )

    @property
    def _draft(self) -> Path:
        return self._path.with_suffix(f".{os.getpid()}.draft")

    def _read(self) -> list[_Row]:
        try:
            return _File.model_validate_json(self._path.read_bytes()).priors
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("%s cannot be read (%s); using the default priors", self._path, error.strerror)
        except ValidationError:
            damaged_path = self._path.with_suffix(".bad")
            logger.warning("%s is damaged; renamed it to %s and using the default priors", self._path, damaged_path)
            with contextlib.suppress(OSError):
                self._path.replace(damaged_path)
        return []

    def prior(self, key: PriorKey) -> Prior:
        return self._get(key).prior

    def observe(
        self,
        key: PriorKey,
        first_wave: Floats,
        layout: Layout = "lists",
        outcomes: Sequence[Trajectory | Failure] = (),
    ) -> None:
        """Learn from a request's first wave. first_wave: (m, n) ballots. outcomes: at least m, launch order."""
        orders = [outcome.draw.order for outcome in outcomes[: len(first_wave)]]
        learnt = observe(self._get(key), first_wave, key.aggregate, layout=layout, orders=orders, winners=key.winners)
        # Evict the least recently used tag of the key that has the most, so a client that floods us with tags removes
        # neither those of another key nor its own that are in use.
        self._learnt.pop(key, None)
        self._learnt[key] = learnt
        if len(self._learnt) > MAX_TASKS:
            (largest, _), *_ = Counter(one.tenant for one in self._learnt).most_common(1)
            del self._learnt[next(one for one in self._learnt if one.tenant == largest)]
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the file atomically. A full disk must not fail a request."""
        self._saved_s = time.monotonic()
        rows = [
            _Row(
                **key._asdict(),
                pair_variance=learnt.prior.pair_variance,
                gap_variance=learnt.prior.gap_variance,
                score_variance=learnt.prior.score_variance,
                weight=learnt.weight,
            )
            for key, learnt in (self._initial | self._learnt).items()
        ]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._draft.write_text(_File(priors=rows).model_dump_json(indent=1), "utf-8")
            self._draft.replace(self._path)
        except OSError as error:
            logger.warning("could not write priors to %s: %s", self._path, error.strerror)

    def _get(self, key: PriorKey) -> LearnedPrior:
        """A new tag starts from the prior of the key's untagged requests, and a new key from an older file's priors,
        with the weight of a new prior."""
        if key in self._learnt:
            return self._learnt[key]
        known = self._learnt.get(key._replace(task=""))
        for initial in (key._replace(tenant=""), key._replace(task="", tenant="")):
            known = known or self._initial.get(initial)
        facts = AGGREGATES[key.aggregate]
        initial_prior = facts.winners_prior if key.winners else facts.prior
        return LearnedPrior(known.prior if known else initial_prior)
