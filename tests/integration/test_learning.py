"""What traffic and labels teach: priors and calibration, over HTTP around a fake engine."""

import json
from pathlib import Path

import numpy as np
import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.judging import priors_store as priors
from grm_server.settings import SettingsError, load_settings
from tests.integration.conftest import Serve
from tests.integration.judging import favours, post


async def test_what_traffic_teaches_survives_a_restart(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    where = f"stopping.priors={path}"
    async with serve(FakeEngine(), where) as client:
        for seed in range(30):
            await post(client, seed=seed, k=4, task="maths")
    first = json.loads(path.read_text())["priors"]
    assert [(row["model"], row["task"], row["aggregate"]) for row in first] == [("fake", "maths", "mean")]
    assert first[0]["weight"] == 50
    # A judge of random scores has a large variance and no true gaps.
    assert first[0]["pair_variance"] > 6
    assert first[0]["gap_variance"] < 3
    async with serve(FakeEngine(), where) as client:
        await post(client, k=4, task="maths")
        await post(client, k=4, aggregate="vote")
    second = json.loads(path.read_text())["priors"]
    assert second[0]["weight"] == 51
    assert len(second) == 2


@pytest.mark.parametrize("content", ["", "{", '{"priors": [{"model": 1}]}'])
async def test_priors_that_cannot_be_read_are_set_aside(serve: Serve, tmp_path: Path, content: str) -> None:
    path = tmp_path / "learnt.json"
    path.write_text(content)
    async with serve(FakeEngine(), f"stopping.priors={path}") as client:
        await post(client, k=4)
    assert path.with_suffix(".bad").read_text() == content
    assert json.loads(path.read_text())["priors"]


async def test_a_disk_that_cannot_be_written_is_named_at_the_start_and_fails_no_request(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with serve(FakeEngine(), f"stopping.priors={tmp_path / 'file' / 'priors.json'}") as client:
        assert "priors.json cannot be written" in caplog.text
        assert (await post(client, k=4))["k_used"] == 4


def test_callers_cannot_fill_the_memory_with_tags_nor_keep_others_out(tmp_path: Path) -> None:
    store = priors.PriorStore(tmp_path / "priors.json")
    mine = priors.Key("fake", "mine", "mean")
    for number in range(400):
        store.observe(priors.Key("fake", f"tag-{number}", "mean"), np.zeros((4, 2)))
        store.observe(mine, np.zeros((4, 2)))
    store.save()
    rows = json.loads((tmp_path / "priors.json").read_text())["priors"]
    assert len(rows) == priors.MAX_TASKS
    assert {row["task"]: row["weight"] for row in rows}["mine"] == 420


def test_a_new_tag_starts_from_untagged_traffic_and_learns_as_fast_as_a_new_server(tmp_path: Path) -> None:
    store = priors.PriorStore(tmp_path / "priors.json")
    rng = np.random.default_rng(0)
    untagged = priors.Key("fake", "", "mean")
    for _ in range(3000):
        store.observe(untagged, rng.normal(0, 0.5, (4, 2)))
    tagged = priors.Key("fake", "safety", "mean")
    assert store.prior(tagged) == store.prior(untagged)
    for _ in range(60):
        store.observe(tagged, rng.normal(0, 2.0, (4, 2)))
    assert store.prior(tagged).pair_variance > 4


async def test_each_aggregate_learns_for_itself(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    async with serve(FakeEngine(), f"stopping.priors={path}") as client:
        for seed in range(20):
            await post(client, k=4, seed=seed)
            await post(client, k=4, seed=seed, aggregate="vote")
    learnt = {row["aggregate"]: row["pair_variance"] for row in json.loads(path.read_text())["priors"]}
    assert learnt["vote"] < 1 < learnt["mean"]


async def test_the_first_wave_teaches_whatever_comes_after_it(serve: Serve, tmp_path: Path) -> None:
    """Stopped or not, winsorised or not: later samples must not change what a request teaches."""
    taught = []
    for name, rest in (("one", ["5, 5}"] * 12), ("other", ["9, 1}"] * 12)):
        path = tmp_path / f"{name}.json"
        engine = FakeEngine(["9, 2}", "2, 9}", "9, 2}", "2, 9}", *rest])
        async with serve(engine, f"stopping.priors={path}") as client:
            await post(client, stop={"rule": "precision", "se": 1e-9}, aggregate="winsorised")
        taught.append(json.loads(path.read_text()))
    assert taught[0] == taught[1]


async def test_a_calibration_for_the_model_gives_chances_against_labels(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    fitted = {"tau": 1.5, "labels": 300, "k_used": 4, "accuracy": 0.7, "ece_judge": 0.2, "ece_label": 0.02}
    for model, known in (("fake", True), ("another", False)):
        path.write_text(json.dumps({"model": model, **fitted}))
        async with serve(FakeEngine(score=favours("B.")), f"stopping.calibration={path}") as client:
            answer = await post(client, k=4)
        if known:
            assert 0.5 < answer["p_best_label"][1] < answer["p_best"][1]
            assert sum(answer["p_best_label"]) == pytest.approx(1)
        else:
            assert answer["p_best_label"] is None


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_calibration_that_cannot_be_read_stops_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"stopping\.calibration"):
        create_app(load_settings({}, [f"stopping.calibration={path}"]))
