"""No text that a client sends appears in the log or in the metrics."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.integration.keys import bearer
from tests.integration.processes import process

CANARY = "CANARY-7f3a"
KEY = f"{CANARY}-as-a-valid-key"


def text(n: int) -> str:
    return f"{CANARY} {n}"


def canary_requests() -> list[tuple[str, Any]]:
    """Paths and bodies, valid ones and ones that fail in every way."""
    whole = {"query": text(1), "responses": [text(2), text(3)], "reference": text(4), "principles": text(5), "k": 2}
    chat = [{"role": "user", "content": text(6)}, {"role": "assistant", "content": text(7)}]
    nemo = {
        "responses_create_params": {"input": text(8)},
        "response": {"output": [{"type": "message", "content": text(9)}]},
        "label": text(10),
        "_ng_group_id": CANARY,
        "_ng_rollout_index": 0,
    }
    return [
        ("/v1/rewards", whole),
        ("/v1/rewards", whole | {"task": CANARY}),
        ("/v1/rewards", whole | {"k": 10_000}),
        ("/v1/rewards", whole | {"k": CANARY}),
        ("/v1/rewards", whole | {CANARY: 1}),
        ("/v1/rewards", whole | {"query": CANARY * 100_000}),
        ("/v1/rewards", whole | {"query": f"{CANARY} \ud800"}),
        ("/v1/rewards", whole | {"stop": {"rule": CANARY}}),
        ("/v1/rewards", whole | {"hint": 5}),
        ("/v1/rewards", whole | {"deadline_s": 1e-6}),
        ("/v1/rewards", whole | {"aggregate": "meta_top"}),
        (f"/v1/rewards?{CANARY}={CANARY}", whole),
        (f"/{CANARY}", whole),
        ("/get_reward", {"query": [text(1) + text(2)], "prompts": [text(1)], "labels": [text(3)]}),
        ("/get_reward", {"query": [CANARY], "prompts": []}),
        (f"/get_reward?task={CANARY}&n=1", {"query": [CANARY], "prompts": [CANARY]}),
        (f"/get_reward?{CANARY}=1&stop={CANARY}&nn={CANARY}", {"query": [CANARY]}),
        (f"/get_reward?{CANARY}=1&nn={CANARY}&n=1", {"query": [CANARY]}),
        ("/get_reward?n=1", {"query": [CANARY * 100_000]}),
        ("/reward?n=1", {"prompt": text(1), "response": text(2), "label": text(3), "group": CANARY, "slot": 0}),
        ("/reward?n=1", {"prompt": text(1), "response": text(4), "group": CANARY, "slot": 0}),
        ("/verify?n=1", nemo),
        ("/v1/score/evaluation", {"messages": [text(1)]}),
        ("/v1/chat/completions", {"messages": chat, "model": CANARY}),
        ("/v1/chat/completions", {"messages": chat[:1]}),
        ("/rerank", {"query": text(1), "documents": [text(2)]}),
        ("/score", {"text_1": [CANARY], "text_2": [CANARY, CANARY]}),
        ("/api/rewardanything", {"principle": CANARY, "prompt": CANARY, "responses": {CANARY: CANARY}}),
    ]


def test_no_text_of_a_request_is_in_the_log_or_the_metrics(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[a]\nkey = "{KEY}"\n')
    settings = (f"auth.keys_file={keys}", "http.drain_grace_s=0", "grouping.idle_s=0.05", "judge.k=2")
    with process(tmp_path, 0, *settings, "log_level=INFO", "stopping.audit_share=1") as server:
        url = server.ready()
        statuses = set()
        with httpx.Client(base_url=url, headers=bearer(KEY), timeout=30) as client:
            for path, body in canary_requests():
                for accept in ("application/json", "text/event-stream"):
                    answer = client.post(
                        path,
                        content=json.dumps(body),
                        headers={"Accept": accept, "Content-Type": "application/json", CANARY: CANARY},
                    )
                    statuses.add(answer.status_code)
            raw = {"Content-Type": "application/json"}
            for content in (CANARY, f'{{"query": "{CANARY}', f"[{CANARY}" * 1000, f'["{CANARY}"]'):
                statuses.add(client.post("/v1/rewards", content=content, headers=raw).status_code)
            statuses.add(client.get(f"/v1/judgements/{CANARY}").status_code)
            statuses.add(client.post("/v1/rewards", content=CANARY, headers={"Content-Type": CANARY}).status_code)
            for headers in (bearer(f"{CANARY}-wrong"), {"Authorization": CANARY}, {"X-API-Key": f"{CANARY}-wrong"}):
                statuses.add(httpx.post(f"{url}/v1/rewards", headers=headers).status_code)
            statuses.add(httpx.post(f"{url.replace('://', f'://{CANARY}:{CANARY}@')}/v1/rewards").status_code)
            keys.write_text(f'[a]\nkey = "{KEY}"\n[{CANARY}')
            metrics = client.get("/metrics").text
        server.end(signal.SIGTERM)
        code, log = server.ended(30)
    assert statuses == {200, 400, 401, 404, 409, 415, 422, 504}
    assert code == 0
    assert "auth.keys_file" in log, "the log level is INFO"
    assert "grm_requests_total" in metrics
    assert CANARY not in log
    assert CANARY not in metrics
