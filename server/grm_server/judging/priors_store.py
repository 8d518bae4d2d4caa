"""What traffic has taught, per model, task tag and aggregate, kept in a file over restarts."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.priors import Learnt, observe
from grm_server.grm.types import Aggregate, Floats, Prior

logger = logging.getLogger(__name__)

MAX_TASKS = 256
"""Priors kept. Task tags come from callers and may be any number."""
SAVE_EVERY_S = 30.0


class Key(NamedTuple):
    model: str
    task: str
    aggregate: Aggregate


class _Row(BaseModel):
    model: str
    task: str
    aggregate: Aggregate
    pair_variance: float = Field(gt=0)
    gap_variance: float = Field(gt=0)
    score_variance: float = Field(gt=0)
    weight: float = Field(ge=0)


class _File(BaseModel):
    priors: list[_Row]


class PriorStore:
    """Reads the file once, writes it now and then and when it is closed. Two servers should not share one."""

    def __init__(self, path: Path) -> None:
        """A file that is damaged is set aside with a warning: priors can be learnt again."""
        self._path = path
        self._learnt: dict[Key, Learnt] = {}
        self._saved_s = time.monotonic()
        for row in self._read():
            prior = Prior(row.pair_variance, row.gap_variance, row.score_variance)
            self._learnt[Key(row.model, row.task, row.aggregate)] = Learnt(prior, row.weight)
        self._try_to_write()

    def _try_to_write(self) -> None:
        """Say at the start, and not only when it is too late, that nothing will be kept."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._draft.write_text("{}", "utf-8")
            self._draft.unlink()
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): what traffic teaches will be forgotten at the end; see stopping.priors",
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
            logger.warning("%s cannot be read (%s); starting from the default priors", self._path, error.strerror)
        except ValidationError:
            damaged_path = self._path.with_suffix(".bad")
            logger.warning("%s is damaged; it is now %s, and priors start from the defaults", self._path, damaged_path)
            with contextlib.suppress(OSError):
                self._path.replace(damaged_path)
        return []

    def prior(self, key: Key) -> Prior:
        return self._known(key).prior

    def observe(self, key: Key, first_wave: Floats) -> None:
        """Learn from the first wave of a request: (m, n) ballots."""
        learnt = observe(self._known(key), first_wave, key.aggregate)
        # The least recent tag makes room: callers must not be able to keep others from being learnt about.
        self._learnt.pop(key, None)
        self._learnt[key] = learnt
        if len(self._learnt) > MAX_TASKS:
            del self._learnt[next(iter(self._learnt))]
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the file whole or not at all. A disk that is full is no reason to fail a request."""
        self._saved_s = time.monotonic()
        rows = [
            _Row(
                **key._asdict(),
                pair_variance=learnt.prior.pair_variance,
                gap_variance=learnt.prior.gap_variance,
                score_variance=learnt.prior.score_variance,
                weight=learnt.weight,
            )
            for key, learnt in self._learnt.items()
        ]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._draft.write_text(_File(priors=rows).model_dump_json(indent=1), "utf-8")
            self._draft.replace(self._path)
        except OSError as error:
            logger.warning("priors could not be written to %s: %s", self._path, error.strerror)

    def _known(self, key: Key) -> Learnt:
        """A new tag starts from what untagged requests taught, and learns as fast as a new server."""
        if key in self._learnt:
            return self._learnt[key]
        untagged = self._learnt.get(key._replace(task=""))
        return Learnt(untagged.prior if untagged else AGGREGATES[key.aggregate].prior)
