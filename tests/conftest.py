"""A Hypothesis profile without deadlines: on a shared machine, a slow example is not a wrong one."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
