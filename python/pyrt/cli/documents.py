"""What ``inspect`` shows: containers and images as the documents that Docker's users and their scripts know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyrt.cli.figures import stamp
from pyrt.cli.settings import config_document, host_config_document, mount_documents, network_document
from pyrt.cli.template import Map, compile_template
from pyrt.cli.verbs.ps import docker_state
from pyrt.engine.configuration import config_of
from pyrt.engine.recipe import options_of
from pyrt.engine.results import Verdict
from pyrt.engine.states import LIVE, State
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from pyrt.engine.record import Record
    from pyrt.images.image import Image


def container_document(record: Record, image: Image | None, folder: str) -> dict[str, Any]:
    """A container. ``Options`` are pyrt's own, as they were given; ``State.Verdict`` says why it ended.

    ``image`` is None if it is gone, ``folder`` that of the container.
    """
    command = list(record.command)
    options = options_of(record)
    return {
        "Id": record.id,
        "Created": stamp(record.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(record),
        "Image": record.image_id,
        "Name": f"/{record.name}",
        "RestartCount": record.restarts,
        "LogPath": f"{folder}/log" if record.lasting and record.lasting.log.files else "",
        "Driver": "overlay2",
        "Platform": image.platform.os if image else "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {**host_config_document(record, options), **_lasting(record)},
        "GraphDriver": _storage(image, folder),
        "Mounts": mount_documents(options),
        "Config": config_document(record, options, config_of(image.config, record) if image else None),
        "NetworkSettings": network_document(options),
        "Options": msgspec.json.decode(record.options),
    }


def _storage(image: Image | None, folder: str) -> dict[str, Any]:
    data = {"LowerDir": ":".join(image.layers) if image else "", "UpperDir": f"{folder}/upper"}
    return {"Name": "overlay2", "Data": {**data, "WorkDir": f"{folder}/work"}}


def _lasting(record: Record) -> dict[str, Any]:
    """Log and restarts, which only a container has that outlives its engine."""
    if record.lasting is None:
        return {}
    log, restart = record.lasting.log, record.lasting.restart
    options = {"max-size": str(log.size), "max-file": str(log.files)} if log.files else {}
    given = {"tag": log.tag, "labels": ",".join(log.labels), "env": ",".join(log.env)}
    options |= {name: text for name, text in given.items() if text}
    return {
        "LogConfig": {"Type": log.driver, "Config": options},
        "RestartPolicy": {"Name": restart.when, "MaximumRetryCount": restart.most},
    }


def _health(record: Record) -> dict[str, Any]:
    if record.health is None:
        return {}
    probes = [
        {"Start": stamp(each.started), "End": stamp(each.finished), "ExitCode": each.exit_code, "Output": each.output}
        for each in record.health.probes
    ]
    return {"Health": {"Status": record.health.status, "FailingStreak": record.health.failing, "Log": probes}}


def _state(record: Record) -> dict[str, Any]:
    status = record.status
    return {
        **_health(record),
        "Status": docker_state(record),
        "Running": record.state in LIVE,
        "Paused": record.state is State.PAUSED,
        "Restarting": record.state is State.RESTARTING,
        "OOMKilled": bool(status and status.verdict is Verdict.OUT_OF_MEMORY),
        "Dead": False,
        "Pid": record.pid if record.state in LIVE else 0,
        "ExitCode": status.exit_code if status else 0,
        "Error": record.error,
        "StartedAt": stamp(record.started),
        "FinishedAt": stamp(record.finished),
        "Verdict": str(status.verdict) if status else "",
        "Signal": status.signal if status else None,
        "MemoryPeak": status.memory_peak if status else 0,
        "PidsRefused": status.pids_refused if status else 0,
        "CpuSeconds": status.cpu_time if status else 0.0,
    }


def image_document(image: Image) -> dict[str, Any]:
    """An image."""
    config = image.config
    health = config.healthcheck
    return {
        "Id": image.id,
        "RepoTags": [Reference.parse(name).familiar() for name in image.names],
        "RepoDigests": [Reference.parse(name).familiar() for name in image.repo_digests],
        "Digest": image.digest,
        "Comment": "",
        "Created": config.created,
        "Author": config.author,
        "Config": {
            "User": config.user,
            "ExposedPorts": _set(config.exposed_ports),
            "Env": list(config.env),
            "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
            "Cmd": None if config.cmd is None else list(config.cmd),
            "WorkingDir": config.working_dir,
            "Volumes": _set(config.volumes),
            "Labels": Map(config.labels),
            "StopSignal": config.stop_signal,
            "Healthcheck": msgspec.to_builtins(health) if health else None,
        },
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant,
        "Os": image.platform.os,
        "OsVersion": image.platform.os_version,
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
    }


def _set(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Go's way to write a set."""
    return {name: {} for name in names}


def show(documents: list[dict[str, Any]], form: str | None) -> str:
    """The documents in the form of --format: an indented list, "json" for a line each, or a template for each."""
    if form in {None, ""}:
        return msgspec.json.format(msgspec.json.encode(documents), indent=4).decode() + "\n"
    assert form is not None
    line = compile_template("{{json .}}" if form == "json" else form)
    return "".join(line(document) + "\n" for document in documents)
