"""A trainer's reward function is configured by the environment."""

from __future__ import annotations

from dataclasses import fields

import pytest

from grm_client.trainers.reward_config import PREFIX, RewardConfig, config_from
from grm_server.settings import Settings, load_settings

EVERYTHING = {
    "GRM_CLIENT_URL": "http://judge:8000",
    "GRM_CLIENT_API_KEY": "secret",
    "GRM_CLIENT_K": "8",
    "GRM_CLIENT_OPTIONS": '{"stop": {"rule": "fixed"}, "k": 2}',
    "GRM_CLIENT_CONCURRENCY": "3",
    "GRM_CLIENT_TIMEOUT_S": "12.5",
    "GRM_CLIENT_MAX_RETRIES": "0",
    "GRM_CLIENT_THOUGHTS": "drop",
    "GRM_CLIENT_FAILURE_REWARD": "raise",
}


def test_every_field_can_be_set_in_the_environment() -> None:
    assert {PREFIX + field.name.upper() for field in fields(RewardConfig)} <= EVERYTHING.keys()
    config = config_from(EVERYTHING | {"PATH": "/bin"})
    assert config == RewardConfig(
        url="http://judge:8000",
        api_key="secret",
        k=8,
        options={"stop": {"rule": "fixed"}, "k": 2},
        concurrency=3,
        timeout_s=12.5,
        max_retries=0,
        thoughts="drop",
        failure_reward=None,
    )
    assert config.request_options() == {"stop": {"rule": "fixed"}, "k": 8}


def test_absent_and_empty_variables_are_the_defaults() -> None:
    assert config_from({}) == config_from({"GRM_CLIENT_URL": "", "GRM_CLIENT_K": ""}) == RewardConfig()
    assert RewardConfig().request_options() == {}
    assert config_from({"GRM_CLIENT_FAILURE_REWARD": "-1"}).failure_reward == -1.0


@pytest.mark.parametrize(
    ("name", "value"), [("GRM_CLIENT_K", "many"), ("GRM_CLIENT_OPTIONS", "{"), ("GRM_CLIENT_OPTIONS", "[1]")]
)
def test_an_invalid_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        config_from({name: value})


def test_a_server_on_the_same_machine_ignores_them() -> None:
    assert load_settings(EVERYTHING) == Settings()
