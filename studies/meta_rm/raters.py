"""Meta RMs small enough for a laptop, and the control raters that they must beat. All ratings are held out.

A rater is a table of features with one row per sample, and a classifier. The ratings of any other meta RM come as
logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from grm_server.grm.types import Bools, Floats, Ints
from grm_train.meta_rm.head import platt
from grm_train.meta_rm.quality import probabilities
from studies.meta_rm.transcripts import Item

Split = Literal["prompt", "source"]
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """All samples of all items, concatenated."""

    right: Bools
    """(m,)"""
    item: Ints
    """(m,): index of the item."""
    judge: Ints
    """(m,): index into `judges`."""
    judges: tuple[str, ...]
    texts: Any
    """(m,) object array of critiques."""
    folds: Ints
    """(m,)"""

    @property
    def by_judge(self) -> Ints:
        """(m,): group numbers; samples of the same judge on the same item share one."""
        return self.item * len(self.judges) + self.judge


@dataclass(frozen=True, slots=True, eq=False)
class Rater:
    features: Any
    """(m, ...)"""
    model: Callable[[], Any]
    """An untrained classifier with `fit` and `decision_function`."""


def flatten(items: Sequence[Item], split: Split) -> Samples:
    """split: `prompt`: folds by a hash of the query; `source`: each part of the set is a fold."""
    pairs = [(place, sample) for place, item in enumerate(items) for sample in item.samples]
    judges = tuple(sorted({sample.judge for _, sample in pairs}))
    sources = sorted({item.source for item in items})
    of_item = [int(i.group[:8], 16) % FOLDS if split == "prompt" else sources.index(i.source) for i in items]
    return Samples(
        right=np.array([sample.right for _, sample in pairs]),
        item=np.array([place for place, _ in pairs]),
        judge=np.array([judges.index(sample.judge) for _, sample in pairs]),
        judges=judges,
        texts=np.array([sample.critique for _, sample in pairs], dtype=object),
        folds=np.array([of_item[place] for place, _ in pairs]),
    )


def raters(items: Sequence[Item], samples: Samples) -> Iterator[tuple[str, Rater]]:
    """Raters by name. Each uses:

    tfidf            words and character n-grams of the critique
    judge            which judge wrote it: how good that judge is on other prompts
    critique length  its length
    chosen longer    how much longer the preferred response is than the other; not the critique
    all but words    the last three together
    """
    judge = np.eye(len(samples.judges))[samples.judge]
    length = np.log1p([[float(len(text))] for text in samples.texts])
    longer = np.array([[_longer(item, s.winner)] for item in items for s in item.samples])
    yield "tfidf", Rater(_counts(samples.texts), _tfidf)
    for name, features in (("judge", judge), ("critique length", length), ("chosen longer", longer)):
        yield name, Rater(features, _numbers)
    yield "all but words", Rater(np.hstack([judge, length, longer]), _numbers)


def _longer(item: Item, winner: int) -> float:
    lengths = np.log1p([len(response) for response in item.responses])
    return float(lengths[winner] - lengths[1 - winner])


def _counts(texts: Any) -> Any:
    """(m, 2 * 2**17) counts of words and word pairs, and of character n-grams. Hashing is not fitted, so nothing leaks
    between folds."""
    kinds: tuple[dict[str, Any], ...] = ({"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (2, 4)})
    parts = [HashingVectorizer(n_features=2**17, alternate_sign=False, norm=None, **k).transform(texts) for k in kinds]
    return csr_matrix(hstack(parts))


def _tfidf() -> Any:
    return make_pipeline(TfidfTransformer(sublinear_tf=True), LogisticRegression(max_iter=1000))


def _numbers() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def held_out(rater: Rater, right: Bools, folds: Ints, on_fit: Callable[[], None] = lambda: None) -> Floats:
    """(m,) p of each sample, from a classifier trained and calibrated on the other folds.

    Calibration uses held-out logits too, from an inner cross-validation over those folds.
    """
    p = np.empty(len(right))
    for fold in np.unique(folds):
        test = folds == fold
        x, y, inner = rater.features[~test], right[~test], folds[~test]
        logits = np.empty(len(y))
        for unseen in (inner == other for other in np.unique(inner)):
            logits[unseen] = _fitted(rater, x[~unseen], y[~unseen]).decision_function(x[unseen])
            on_fit()
        p[test] = probabilities(_fitted(rater, x, y).decision_function(rater.features[test]), platt(logits, y))
        on_fit()
    return p


def fits(folds: Ints) -> int:
    """How many classifiers `held_out` fits."""
    return len(np.unique(folds)) ** 2


def _fitted(rater: Rater, x: Any, right: Bools) -> Any:
    return rater.model().fit(x, right)


def calibrated(logits: Floats, right: Bools, folds: Ints) -> Floats:
    """(m,) p from given logits, calibrated on the other folds."""
    p = np.empty(len(right))
    for test in (folds == fold for fold in np.unique(folds)):
        p[test] = probabilities(logits[test], platt(logits[~test], right[~test]))
    return p


def judge_accuracy(samples: Samples) -> float:
    """Accuracy of predicting the judge from the words of a critique, on held-out prompts."""
    predicted = np.empty(len(samples.judge))
    for test in (samples.folds == fold for fold in np.unique(samples.folds)):
        model = make_pipeline(TfidfVectorizer(min_df=3, sublinear_tf=True), LogisticRegression(max_iter=1000))
        predicted[test] = model.fit(samples.texts[~test], samples.judge[~test]).predict(samples.texts[test])
    return float((predicted == samples.judge).mean())
