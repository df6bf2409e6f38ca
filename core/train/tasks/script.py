"""``train.script``: runs the user's own, unmodified training script and shows what it reports while it runs.

The script's output is the run's log; its metrics are read from TensorBoard files, CSV files, the Hugging Face
Trainer's lines, or the one-file emitter. The parts live in ``core.train.script``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from core.contracts.errors import EnvironmentProblem, FieldProblem
from core.contracts.kinds import RunKind
from core.contracts.specs import Device, RunSpec
from core.contracts.worker import RunContext
from core.runlog.layout import RunLayout
from core.train import child
from core.train.fields import extra
from core.train.script.command import (
    Launcher,
    RankGroup,
    ScriptCommand,
    find_interpreter,
    launch_argv,
    script_environment,
    threads_per_process,
    write_emitter,
)
from core.train.script.diagnosis import explain_failure, read_tail

if TYPE_CHECKING:
    from core.train.script.watch import ScriptWatch

_SCRIPT = "Script"
_PROCESSES = "Launcher"
_METRICS = "Metrics"
_OUTPUT_KIND = "script.output"
_EMITTED_EVENTS = "events.*.[0-9]*.jsonl"


class ScriptTrainingSpec(RunSpec, frozen=True, kw_only=True, tag="train.script"):
    """Run a training script."""

    script: Annotated[
        str,
        Meta(
            title="Script",
            description="The Python file to run, unmodified.",
            extra_json_schema={**extra(_SCRIPT), "path": "file"},
        ),
    ] = ""
    args: Annotated[
        tuple[str, ...],
        Meta(
            title="Arguments",
            description="Given to the script as they are; {artifacts}, {checkpoints}, {scratch} and {run_dir} stand for the run's folders.",
            extra_json_schema=extra(_SCRIPT),
        ),
    ] = ()
    working_folder: Annotated[
        str,
        Meta(
            title="Working folder",
            description="Where the script runs; empty for the script's own folder.",
            extra_json_schema={**extra(_SCRIPT), "path": "folder"},
        ),
    ] = ""
    interpreter: Annotated[
        str,
        Meta(
            title="Python",
            description="The Python of the script's environment; empty for the one Pilothouse runs on.",
            extra_json_schema=extra(_SCRIPT),
        ),
    ] = ""
    launcher: Annotated[
        Launcher,
        Meta(
            title="Launcher",
            description="python for one process; torchrun or accelerate for scripts written for several.",
            extra_json_schema=extra(_PROCESSES),
        ),
    ] = "python"
    processes: Annotated[
        int,
        Meta(
            title="Processes",
            ge=1,
            le=1024,
            description="Processes (ranks) that torchrun or accelerate start on each host; usually one for each GPU.",
            extra_json_schema=extra(_PROCESSES),
        ),
    ] = 1
    device: Annotated[
        Device,
        Meta(
            title="Device",
            description="Only accelerate asks for it: 'cpu' keeps it off the GPU.",
            extra_json_schema=extra(_PROCESSES, advanced=True),
        ),
    ] = "auto"
    watch: Annotated[
        tuple[str, ...],
        Meta(
            title="Watched places",
            description="Folders or files with TensorBoard or CSV metrics, relative to the working folder; empty for all of it.",
            extra_json_schema=extra(_METRICS, advanced=True),
        ),
    ] = ()


def _working_folder(spec: ScriptTrainingSpec) -> Path:
    named = spec.working_folder or str(Path(spec.script).expanduser().absolute().parent)
    return Path(named).expanduser().absolute()


def check(spec: ScriptTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look for the script, its folder and its Python."""
    problems: list[FieldProblem] = []
    script = Path(spec.script).expanduser()
    if not spec.script:
        problems.append(FieldProblem(field="script", message="no script is chosen.", hint="Choose a Python file."))
    elif not script.is_file():
        message = f"{script} is a folder." if script.is_dir() else f"there is no file {script}."
        problems.append(FieldProblem(field="script", message=message, hint="Choose a Python file."))
    elif not os.access(script, os.R_OK):
        message = f"{script} cannot be read."
        problems.append(FieldProblem(field="script", message=message, hint="Give yourself the permission to read it."))
    if spec.working_folder and not _working_folder(spec).is_dir():
        message = f"there is no folder {_working_folder(spec)}."
        problems.append(FieldProblem(field="working_folder", message=message, hint="Choose the folder to run in."))
    if find_interpreter(spec.interpreter) is None:
        message = f"there is no program {spec.interpreter}."
        hint = "Choose the python of an environment, such as .venv/bin/python."
        problems.append(FieldProblem(field="interpreter", message=message, hint=hint))
    if spec.launcher == "python" and spec.processes != 1:
        message = f"python starts one process, not {spec.processes}."
        problems.append(FieldProblem(field="processes", message=message, hint="Choose torchrun or accelerate, or 1."))
    nodes = max(len(spec.launch.hosts), spec.launch.slurm.nodes, spec.launch.kubernetes.nodes)
    if spec.launcher == "python" and nodes > 1:
        message = f"python starts one process, not one on each of {nodes} hosts."
        problems.append(FieldProblem(field="launcher", message=message, hint="Choose torchrun or accelerate."))
    return tuple(problems)


def _ranks(spec: ScriptTrainingSpec) -> int:
    return spec.processes


def _code_folder(spec: ScriptTrainingSpec) -> str:
    """Return the working folder when the script lies in it, else the script's own folder."""
    if not spec.script:
        return ""
    script, folder = Path(spec.script).expanduser().absolute(), _working_folder(spec)
    return str(folder if script.is_relative_to(folder) else script.parent)


def _fill(text: str, context: RunContext) -> str:
    layout = RunLayout(context.run_dir)
    folders = {
        "{artifacts}": context.artifacts_dir,
        "{checkpoints}": layout.checkpoints,
        "{scratch}": context.scratch_dir,
        "{run_dir}": context.run_dir,
    }
    for name, folder in folders.items():
        text = text.replace(name, str(folder))
    return text


def _command(spec: ScriptTrainingSpec, context: RunContext) -> ScriptCommand:
    """Build what to start.

    Raises:
        EnvironmentProblem: The interpreter is gone.
    """
    interpreter = find_interpreter(spec.interpreter)
    if interpreter is None:
        raise EnvironmentProblem(f"There is no program {spec.interpreter}.", "Choose the python of an environment.")
    group = RankGroup(
        placement=context.placement,
        node=context.node,
        group_id=f"{context.run_id}-{context.attempt}",
        log_folder=context.scratch_dir / "torchrun",
    )
    before, env, note = launch_argv(interpreter, spec.launcher, spec.device, group)
    script = str(Path(spec.script).expanduser().absolute())
    emitter = write_emitter(context.scratch_dir / "emit")
    threads = threads_per_process(spec.launch.threads, group.processes)
    grace = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(spec.launch.stop_grace_s)))}
    RunLayout(context.run_dir).checkpoints.mkdir(exist_ok=True)
    return ScriptCommand(
        argv=(*before, script, *(_fill(arg, context) for arg in spec.args)),
        cwd=_working_folder(spec),
        env={**script_environment(context.run_dir, emitter, threads), **grace, **env},
        note=note,
    )


def _list_outputs(context: RunContext) -> None:
    for path in sorted(context.artifacts_dir.iterdir()):
        context.artifact(path, kind=_OUTPUT_KIND)


def run(spec: ScriptTrainingSpec, context: RunContext) -> None:
    """Run the script to its end, or stop it when asked to.

    Raises:
        UserError: It failed; the sentence quotes what it said.
        EnvironmentProblem: It could not be started.
    """
    from core.train.script.watch import ScriptWatch

    is_head = context.node == context.placement.head.node
    command = _command(spec, context)
    log = RunLayout(context.run_dir).stdout(context.node)
    log_offset = log.stat().st_size if log.exists() else 0
    if is_head and context.attempt == 1:
        context.started_from(None)
    context.progress(0.0, "Running the script")
    context.log(f"{command.note} Runs in {command.cwd}: {' '.join(command.argv)}".strip())
    # The nodes other than the head report through the emitter alone: what one watches would be seen twice on a shared disk.
    places = [command.cwd / _fill(place, context) for place in spec.watch] or [command.cwd]
    watch = ScriptWatch(context, [*places, context.artifacts_dir], log, log_offset) if is_head else None
    process = child.start(command.argv, command.cwd, command.env)
    try:
        stopped = child.follow(
            process,
            context,
            grace_s=spec.launch.stop_grace_s,
            launches_ranks=spec.launcher != "python",
            what="The script",
            poll=(lambda: None) if watch is None else watch.poll,
        )
    finally:
        child.end(process)
    if watch is not None:
        watch.finish()
    output = "" if stopped or process.returncode == 0 else read_tail(log, log_offset)
    stopped = stopped or (len(context.placement.nodes) > 1 and child.is_stopped_too(context, output))
    if process.returncode != 0 and not stopped:
        raise explain_failure(process.returncode, output, command.argv[0])
    if watch is not None:
        _list_outputs(context)
        _warn_of_silence(context, watch, stopped=stopped)


def _warn_of_silence(context: RunContext, watch: ScriptWatch, *, stopped: bool) -> None:
    has_emitted = any(context.run_dir.glob(_EMITTED_EVENTS))
    if watch.num_points == 0 and not has_emitted and not stopped:
        context.log("The script reported no metrics that were recognised.", "warning")


KIND = RunKind(
    spec=ScriptTrainingSpec,
    title="Your training script",
    summary="Runs your own script with python, torchrun or accelerate, and draws the metrics it already writes.",
    group="train",
    icon="script",
    run=run,
    check=check,
    ranks=_ranks,
    spans_nodes=True,
    code_folder=_code_folder,
    examples=("script.toml", "ddp-digits.toml"),
)
