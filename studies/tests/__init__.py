"""Tests of the studies; run them with make test-studies."""
