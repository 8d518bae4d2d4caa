"""Judging one request: query principles, admission, learned priors, audits and the judgement store."""
