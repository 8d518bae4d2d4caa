"""One request judged to its end: query principles, admission, learned priors, audits and the judgement store."""
