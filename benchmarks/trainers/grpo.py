"""A GRPO run with rewards from a running server: TRL's GRPOTrainer, the bundled model as the policy, on a CPU.

    PYTHONPATH=clients:. .venv-trainers/trl/bin/python -m benchmarks.trainers.grpo \\
        --data LLMBar --steps 20 --restart-at 10

Starts `grm serve` with the arguments after `--`. While the rewards of step `--restart-at` are being judged, it restarts
the server; the run must survive that without help. Prompts are the instructions of LLMBar.

Writes the reward of each step and the seconds spent waiting for it to OUT.json, and a plot to OUT.png. It tests the
integration and measures the waiting time. In 20 steps a policy of 135M parameters learns nothing that would show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.data import load_items
from benchmarks.lib.servers import free_port
from benchmarks.trainers.grpo_plot import plot
from grm_client import GRMClient
from grm_client.trl import make_grm_reward

POLICY = Path("~/.cache/grm-server/SmolLM2-135M-Instruct")
START_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument(
        "--policy", type=Path, default=POLICY, help="a model; default: the bundled one (serve it once first)"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--restart-at", type=int, help="restart the server while this step (from 1) is judged")
    parser.add_argument("--restart-after", type=float, default=0.5, help="seconds from the start of that judging")
    parser.add_argument("--prompts", type=int, default=2, help="prompts per step")
    parser.add_argument("--generations", type=int, default=4, help="responses per prompt")
    parser.add_argument("--completion-tokens", type=int, default=48)
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--critique-tokens", type=int, default=32, help="token budget of principles and critique")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grpo"))
    parser.add_argument("--grm", default=".venv/bin/grm", help="the grm command of the server's environment")
    parser.add_argument("serve", nargs="*", help="after --: more arguments for `grm serve`")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    server = Server([*args.grm.split(), "serve", "--port", str(free_port()), *args.serve])
    try:
        server.wait_until_ready()
        steps = train(args, server)
    finally:
        server.stop()
    run = {"steps": steps, "restarts": server.restarts, "k": args.k, "generations": args.generations}
    args.out.with_suffix(".json").write_text(json.dumps(run, indent=2) + "\n", "utf-8")
    plot(run, args.out.with_suffix(".png"))
    waits = [step["wait_s"] for step in steps]
    total_s = sum(step["step_s"] for step in steps)
    print(f"{len(steps)} steps; {sum(waits):.1f} of {total_s:.1f} s spent waiting for rewards")


class Server:
    """`grm serve` on a fixed port, so it can be restarted."""

    def __init__(self, command: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
        self.restarts: list[dict[str, float]] = []
        """For each restart: the step, and seconds until the new server was ready."""
        self._command = command
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_S
        with GRMClient(self.url, max_retries=0) as client:
            while not client.ready():
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError("grm serve did not start; see its log above")
                time.sleep(0.1)

    def restart(self, step: int) -> None:
        began_s = time.monotonic()
        self.stop()
        self._process = self._start()

        def note() -> None:
            self.wait_until_ready()
            self.restarts.append({"step": step, "down_s": time.monotonic() - began_s})

        threading.Thread(target=note, daemon=True).start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


def train(args: argparse.Namespace, server: Server) -> list[dict[str, Any]]:
    """One row per step. TRL is imported here because only its own environment has it."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    judge = make_grm_reward(
        server.url, k=args.k, options={"max_critique_tokens": args.critique_tokens, "stop": {"rule": "fixed"}}
    )
    waits_s: list[float] = []

    async def grm_reward(**batch: Any) -> list[float | None]:
        began_s = time.monotonic()
        step = batch["trainer_state"].global_step + 1
        async with asyncio.TaskGroup() as tasks:
            judged = tasks.create_task(judge(**batch))
            if step == args.restart_at:
                await asyncio.sleep(args.restart_after)
                await asyncio.to_thread(server.restart, step)
        waits_s.append(time.monotonic() - began_s)
        return judged.result()

    rows: list[dict[str, Any]] = []

    class Steps(TrainerCallback):  # type: ignore[misc]
        """Collects what TRL logs. TRL requires a subclass of its callback."""

        def on_step_begin(self, *state: Any, **more: Any) -> None:
            self.began_s = time.monotonic()

        def on_log(self, _: Any, state: Any, *rest: Any, logs: dict[str, float], **more: Any) -> None:
            if "reward" not in logs:
                return
            rows.append(
                {
                    "step": state.global_step,
                    "reward": logs["reward"],
                    "reward_std": logs["reward_std"],
                    "loss": logs["loss"],
                    "failed_share": logs["grm/failed_share"],
                    "se": logs["grm/se"],
                    "wait_s": waits_s[-1],
                    "step_s": time.monotonic() - self.began_s,
                }
            )
            print(json.dumps(rows[-1]), flush=True)

    policy = str(args.policy.expanduser())
    items = load_items(args.data, args.steps * args.prompts, max_chars=1500)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(policy, dtype="float32"),
            grm_reward,
            GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                seed=0,
                max_steps=args.steps,
                logging_steps=1,
                per_device_train_batch_size=args.prompts * args.generations,
                num_generations=args.generations,
                max_completion_length=args.completion_tokens,
                learning_rate=args.learning_rate,
            ),
            Dataset.from_list([{"prompt": [{"role": "user", "content": item.query}]} for item in items]),
            processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
            callbacks=[Steps()],
        )
        trainer.train()
    return rows


if __name__ == "__main__":
    main()
