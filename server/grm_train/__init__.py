"""Offline work on labelled data: calibration, fine-tuning data, meta RM training. The server never imports it."""
