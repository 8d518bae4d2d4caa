"""Who may generate, and when: permits, the fair queue and forecasts of waiting times. See docs/design/admission.md."""
