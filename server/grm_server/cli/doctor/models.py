"""Whether the models and the folder that they are kept in can be used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from grm_server.cli.doctor.finding import Finding, fail, gib, ok, warn
from grm_server.engine import bundled
from grm_server.engine.artifacts import is_complete
from grm_server.meta_rm import bundled as bundled_meta
from grm_server.settings import Settings

_BUNDLED_SIZE = 269 * 10**6
_ROOM = 2**30
"""For the bundled model twice, the second while it is written, and for the bundled meta RM."""


def check_cache(cache_dir: Path) -> Finding:
    """Whether it can be written to, and has room for the bundled model."""
    folder = cache_dir.expanduser()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        if (folder / bundled.NAME).exists():
            what = f"{folder} cannot be written to: what traffic teaches is lost at the end"
            return warn("cache", what, "set stopping.priors to a file that can be written")
        return fail("cache", f"{there} cannot be written to", "set cache_dir (GRM_CACHE_DIR) to a folder that can")
    free = shutil.disk_usage(there).free
    if free < _ROOM and not (folder / bundled.NAME).exists():
        return fail("cache", f"{folder} has {gib(free)} of room", f"make room for {gib(_ROOM)}, or set cache_dir")
    return ok("cache", f"{folder}, {gib(free)} of room")


def check_models(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    if settings.engine.kind == "vllm":
        yield _model("model", settings.engine.model, settings.cache_dir, environment)
    meta = settings.meta_rm
    if meta.kind == "vllm" and meta.model is not None:
        if meta.model == "bundled":
            yield _bundled_meta(settings.cache_dir)
        else:
            yield _model("meta_rm", meta.model, settings.cache_dir, environment)


def weights(settings: Settings, environment: Mapping[str, str]) -> int:
    """Bytes of the weights of all models that this machine will hold; 0 for those it does not have yet."""
    names = [settings.engine.model] if settings.engine.kind == "vllm" else []
    if settings.meta_rm.kind == "vllm" and settings.meta_rm.model is not None:
        names.append(settings.meta_rm.model)
    return sum(_BUNDLED_SIZE if name == "bundled" else _size(_place(name, environment)) for name in names)


def _model(check: str, name: str, cache_dir: Path, environment: Mapping[str, str]) -> Finding:
    if name == "bundled":
        return _bundled(cache_dir)
    place = _place(name, environment)
    if place is not None and place == Path(name):
        if (place / "config.json").exists():
            return ok(check, f"{name}, {gib(_size(place))}")
        return fail(check, f"{name} has no config.json", "give the folder of a checkpoint that transformers can load")
    if place is not None:
        return ok(check, f"{name}, fetched from the hub before, {gib(_size(place))}")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return fail(check, f"there is no {name}", "give the path of a checkpoint, or a name on a model hub")
    if environment.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        what = f"{name} was not fetched yet, and HF_HUB_OFFLINE forbids it"
        return fail(check, what, f"fetch it where there is a network (hf download {name}), or unset HF_HUB_OFFLINE")
    return warn(check, f"{name} is not on this machine", "it is fetched at the first start; that may take long")


def _bundled(cache_dir: Path) -> Finding:
    place = cache_dir.expanduser() / bundled.NAME
    if is_complete(place, bundled.SOURCE):
        return ok("model", f"the bundled {bundled.NAME} is prepared and whole")
    try:
        bundled.packaged()
    except OSError as error:
        return fail("model", str(error), "see above; or choose a model of your own: --model")
    state = "damaged" if place.exists() else "not prepared yet"
    return ok("model", f"the bundled {bundled.NAME} is {state}; the next start prepares it, in half a minute")


def _bundled_meta(cache_dir: Path) -> Finding:
    try:
        card = bundled_meta.card()
    except (OSError, ValueError) as error:
        return fail("meta_rm", str(error), "reinstall grm-server, or choose another with --meta-rm")
    if not card.passes:
        what = f"the bundled meta RM: {'; '.join(card.shortfalls)}"
        return warn("meta_rm", what, "it shows how guidance works; train one for your judge (docs/data-loop.md)")
    return ok("meta_rm", "the bundled meta RM")


def _place(name: str, environment: Mapping[str, str]) -> Path | None:
    """Where a model's files are; None if not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    snapshots = hub / f"models--{name.replace('/', '--')}" / "snapshots"
    return next((one for one in snapshots.glob("*") if (one / "config.json").exists()), None)


def _size(place: Path | None) -> int:
    return 0 if place is None else sum(file.stat().st_size for file in place.glob("*.safetensors"))
