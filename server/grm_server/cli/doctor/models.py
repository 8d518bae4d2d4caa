"""Check the models and the cache folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from grm_server.cli.doctor.finding import Finding, fail, gib, ok, warn
from grm_server.engine import bundled
from grm_server.engine.artifacts import is_complete
from grm_server.engine.hub import local_folder
from grm_server.meta_rm import bundled as bundled_meta
from grm_server.settings import Settings

_BUNDLED_SIZE = 269 * 10**6
_NEEDED_SPACE = 2**30
"""Room for the bundled model twice, because a new copy is written beside the old one, and for the bundled meta RM."""


def check_cache(cache_dir: Path) -> Finding:
    """Whether the folder is writable and has room for the bundled model."""
    folder = cache_dir.expanduser()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        if (folder / bundled.NAME).exists():
            what = f"{folder} is not writable: the priors learned from traffic are lost when the server ends"
            return warn("cache", what, "set stopping.priors to a writable file")
        return fail("cache", f"{existing} is not writable", "set cache_dir (GRM_CACHE_DIR) to a writable folder")
    free = shutil.disk_usage(existing).free
    if free < _NEEDED_SPACE and not (folder / bundled.NAME).exists():
        return fail("cache", f"{folder} has {gib(free)} free", f"free {gib(_NEEDED_SPACE)}, or set cache_dir")
    return ok("cache", f"{folder}, {gib(free)} free")


def check_models(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    if settings.engine.kind == "vllm":
        yield _check_model("model", settings.engine.model, settings.cache_dir, environment)
    meta = settings.meta_rm
    if meta.kind == "vllm" and meta.model is not None:
        if meta.model == "bundled":
            yield _check_bundled_meta()
        else:
            yield _check_model("meta_rm", meta.model, settings.cache_dir, environment)


def weights(settings: Settings, environment: Mapping[str, str]) -> int:
    """Bytes of the weights of all models that this machine will load; models not yet downloaded count as 0."""
    names = [settings.engine.model] if settings.engine.kind == "vllm" else []
    if settings.meta_rm.kind == "vllm" and settings.meta_rm.model is not None:
        names.append(settings.meta_rm.model)
    return sum(_BUNDLED_SIZE if name == "bundled" else _size(local_folder(name, environment)) for name in names)


def _check_model(check: str, name: str, cache_dir: Path, environment: Mapping[str, str]) -> Finding:
    if name == "bundled":
        return _check_bundled(cache_dir)
    folder = local_folder(name, environment)
    if folder is not None and folder == Path(name):
        if (folder / "config.json").exists():
            return ok(check, f"{name}, {gib(_size(folder))}")
        return fail(check, f"{name} has no config.json", "give the folder of a checkpoint that transformers can load")
    if folder is not None:
        return ok(check, f"{name}, downloaded from the hub, {gib(_size(folder))}")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return fail(check, f"{name} does not exist", "give the path of a checkpoint, or a name on a model hub")
    if environment.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        what = f"{name} is not downloaded, and HF_HUB_OFFLINE forbids downloads"
        return fail(check, what, f"download it on a machine with a network (hf download {name}), or unset the variable")
    return warn(check, f"{name} is not downloaded", "the first start downloads it, which may take long")


def _check_bundled(cache_dir: Path) -> Finding:
    folder = cache_dir.expanduser() / bundled.NAME
    if is_complete(folder, bundled.SOURCE):
        return ok("model", f"the bundled {bundled.NAME} is prepared and complete")
    try:
        bundled.packaged()
    except OSError as error:
        return fail("model", str(error), "see above; or choose your own model with --model")
    state = "damaged" if folder.exists() else "not prepared yet"
    return ok("model", f"the bundled {bundled.NAME} is {state}; the next start prepares it in half a minute")


def _check_bundled_meta() -> Finding:
    try:
        card = bundled_meta.card()
    except (OSError, ValueError) as error:
        return fail(
            "meta_rm", str(error), "run `make setup` in the repository again, or choose another meta RM with --meta-rm"
        )
    if not card.passes:
        what = f"the bundled meta RM is weak: {'; '.join(card.shortfalls)}"
        return warn("meta_rm", what, "use it for demos only; train one for your judge (docs/data-loop.md)")
    return ok("meta_rm", "the bundled meta RM passes its gate")


def _size(folder: Path | None) -> int:
    return 0 if folder is None else sum(file.stat().st_size for file in folder.glob("*.safetensors"))
