"""Admission control: permits, the fair queue and wait-time forecasts. See docs/design/admission.md."""
