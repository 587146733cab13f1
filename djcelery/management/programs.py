"""What the legacy command lines were, as data: one ``Program`` per command, and the old sub-commands.

Read by ``options`` (which adds the options of today's Celery to these and translates a parsed line)
and by ``lines`` (free-form lines such as ``celeryctl inspect registered_tasks``). No code here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import click

__all__ = ("BEAT", "CAM", "DETACH", "EV", "GLOBAL_HELP", "METHODS", "PROGRAMS", "SUBCOMMANDS", "WORKER", "Program")

CAMERA = "djcelery.snapshot.Camera"


@dataclass(frozen=True)
class Program:
    """One long-running program: its legacy name, what Celery calls it today, and where they differ."""

    #: The name of the management command.
    name: str
    #: The sub-command of ``celery`` that does the work.
    command: str
    #: Level of the log if neither option nor setting says one.
    log_level: str = "INFO"
    #: Legacy settings that are the defaults of ``--loglevel`` and ``--logfile``.
    level_setting: str = ""
    file_setting: str = ""
    #: PID file in the working directory that is written if it is free; "" for none.
    pidfile: str = ""
    #: The same for a process that has detached.
    detached_pidfile: str = ""
    #: Other spellings of today's options: ``{"--max-tasks-per-child": ("--maxtasksperchild",)}``.
    spellings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Keywords that legacy code gave to ``call_command``: ``{"pool_cls": "pool"}``.
    keywords: dict[str, str] = field(default_factory=dict)
    #: Flags without a counterpart, and what to do instead; they are accepted with a warning.
    removed: dict[str, str] = field(default_factory=dict)
    #: Options with a value that are set to this, whatever the line says.
    forced: dict[str, str] = field(default_factory=dict)
    #: Options of djcelery's own, which Celery doesn't know.
    own: tuple[click.Option, ...] = ()
    #: Help of options, by long name, where Celery has none or leaves out the unit.
    help: dict[str, str] = field(default_factory=dict)


#: Help of the options that Celery wants before the sub-command, and of those all daemons have.
GLOBAL_HELP = {
    "--app": "Dotted name of the Celery app, such as proj.celery:app. Default: the app of this Django project.",
    "--broker": "URL of the message broker. Default: BROKER_URL or CELERY_BROKER_URL of the settings.",
    "--result-backend": "URL or dotted path of the result backend. Default: CELERY_RESULT_BACKEND of the settings.",
    "--loader": "Dotted path of the loader class. Default: djcelery.loaders.DjangoLoader.",
    "--config": "Module to configure Celery from, instead of Django's settings.",
    "--workdir": "Directory to change to before anything else is done.",
    "--no-color": "Don't colour the output.",
    "--quiet": "Print less.",
    "--skip-checks": "Skip system checks.",
    "--logfile": "Write the log to this file. Default: standard error.",
    "--pidfile": "Write the process id to this file, and refuse to start while the process in it is alive.",
    "--uid": "Name or number of the user to run as; needs root.",
    "--gid": "Name or number of the group to run as; needs root.",
    "--umask": "Umask of a detached process; octal if it starts with 0, such as 022.",
    "--executable": "Path of the Python interpreter of a detached process. Default: the one running now.",
    "--loglevel": (
        "Level of the log: DEBUG, INFO, WARNING (or WARN), ERROR, CRITICAL, FATAL in any case, or a number such as 20."
    ),
}

#: What stands for the value of an option in the help, where its own name would say less.
METAVARS = {
    "--settings": "MODULE",
    "--app": "MODULE",
    "--broker": "URL",
    "--result-backend": "URL",
    "--loader": "CLASS",
    "--config": "MODULE",
    "--workdir": "DIR",
    "--logfile": "FILE",
    "--pidfile": "FILE",
    "--statedb": "FILE",
    "--schedule-filename": "FILE",
    "--schedule": "FILE",
    "--uid": "USER",
    "--gid": "GROUP",
    "--umask": "OCTAL",
    "--executable": "PATH",
    "--loglevel": "LEVEL",
    "--hostname": "NAME",
    "--optimization": "PROFILE",
    "--prefetch-multiplier": "N",
    "--concurrency": "N",
    "--time-limit": "SECONDS",
    "--soft-time-limit": "SECONDS",
    "--max-tasks-per-child": "N",
    "--max-memory-per-child": "KIB",
    "--queues": "NAMES",
    "--exclude-queues": "NAMES",
    "--include": "MODULES",
    "--heartbeat-interval": "SECONDS",
    "--autoscale": "MAX,MIN",
    "--scheduler": "CLASS",
    "--max-interval": "SECONDS",
    "--camera": "CLASS",
    "--frequency": "SECONDS",
    "--maxrate": "RATE",
    "--name": "NAME",
}

_NO_EXECV = (
    "Leave it out: pool processes are forked and not executed anew, unless CELERY_WORKER_POOL_START_METHOD is 'spawn'."
)

WORKER = Program(
    name="celeryd",
    command="worker",
    log_level="WARNING",
    level_setting="CELERYD_LOG_LEVEL",
    file_setting="CELERYD_LOG_FILE",
    detached_pidfile="celeryd.pid",
    spellings={"--max-tasks-per-child": ("--maxtasksperchild",)},
    keywords={
        "pool_cls": "pool",
        "discard": "purge",
        "embed_clockservice": "beat",
        "scheduler_cls": "scheduler",
        "state_db": "statedb",
        "send_events": "task_events",
        "task_time_limit": "time_limit",
        "task_soft_time_limit": "soft_time_limit",
        "working_directory": "workdir",
    },
    removed={"--no-execv": _NO_EXECV},
    help={
        "--hostname": "Name of this worker, such as w1@%h; %h is the host, %n the name and %d the domain. "
        "A name without @ is taken as the host.",
        "--detach": "Run in the background; celeryd.pid in the working directory is written if it is free.",
        "--optimization": "Profile of prefetching; fair gives a task only to a free pool process.",
        "--prefetch-multiplier": "Number of messages to take in advance per pool process; 0 for no limit.",
        "--pool": "Kind of pool. Default: prefork.",
        "--task-events": "Send the events of tasks that celerycam and other monitors show.",
        "--time-limit": "Seconds after which a task's process is killed. Default: no limit.",
        "--soft-time-limit": "Seconds after which SoftTimeLimitExceeded is raised in a task. Default: no limit.",
        "--max-tasks-per-child": "Number of tasks after which a pool process is replaced. Default: never.",
        "--max-memory-per-child": "KiB of resident memory after which a pool process is replaced, as soon as its "
        "task has ended. Default: no limit.",
        "--purge": "Delete all waiting messages before starting. They can't be brought back.",
        "--queues": "Comma-separated names of the queues to consume from. Default: all that are configured.",
        "--exclude-queues": "Comma-separated names of queues not to consume from.",
        "--include": "Comma-separated names of more modules to import.",
        "--without-gossip": "Don't listen to the events of other workers.",
        "--without-mingle": "Don't wait a second at the start to learn from other workers what was revoked.",
        "--without-heartbeat": "Don't send heartbeat events.",
        "--heartbeat-interval": "Seconds between two heartbeat events. Default: 2.",
        "--autoscale": "Most and fewest pool processes, such as 10,3; the pool grows and shrinks between them.",
        "--beat": "Run the periodic task scheduler inside this worker; for one worker only.",
        "--schedule-filename": "File of the embedded scheduler, if it keeps one. Default: celerybeat-schedule.",
        "--scheduler": "Scheduler class of the embedded scheduler, such as djcelery.schedulers.DatabaseScheduler.",
        "--statedb": "File that remembers revoked tasks over a restart; .db may be added to its name.",
    },
)

DETACH = Program(
    name="celeryd_detach",
    command=WORKER.command,
    log_level=WORKER.log_level,
    level_setting=WORKER.level_setting,
    file_setting=WORKER.file_setting,
    detached_pidfile=WORKER.detached_pidfile,
    spellings=WORKER.spellings,
    keywords=WORKER.keywords,
    removed=WORKER.removed,
    help={**WORKER.help, "--detach": "Accepted and not needed: this command always detaches."},
)

BEAT = Program(
    name="celerybeat",
    command="beat",
    level_setting="CELERYBEAT_LOG_LEVEL",
    file_setting="CELERYBEAT_LOG_FILE",
    pidfile="celerybeat.pid",
    keywords={"scheduler_cls": "scheduler", "working_directory": "workdir"},
    help={
        "--detach": "Run in the background.",
        "--schedule": "File of the schedule, for schedulers that keep one. Default: celerybeat-schedule.",
        "--scheduler": "Scheduler class, such as djcelery.schedulers.DatabaseScheduler. "
        "Default: CELERYBEAT_SCHEDULER of the settings.",
        "--max-interval": "Most seconds to sleep between two looks at the schedule; may be a fraction.",
        "--hostname": "Name under which remote control reaches this process. Default: celerybeat@ and the host.",
        "--pidfile": "Write the process id to this file, and refuse to start while the process in it is alive. "
        "Without this option celerybeat.pid in the working directory is written if it is free.",
    },
)

_EVENTS_HELP = {
    "--dump": "Print every event as it comes.",
    "--camera": "Take snapshots with this camera class, such as djcelery.snapshot.Camera.",
    "--detach": "Run in the background.",
    "--frequency": "Seconds between two snapshots; may be a fraction.",
    "--maxrate": "Most snapshots per time, such as 10/m. Default: no limit.",
    "--pidfile": "Write the process id to this file, and refuse to start while the process in it is alive. "
    "Without this option celeryev.pid in the working directory is written if it is free.",
}

EV = Program(
    name="celeryev",
    command="events",
    pidfile="celeryev.pid",
    keywords={"freq": "frequency", "working_directory": "workdir"},
    help=_EVENTS_HELP,
)

CAM = Program(
    name="celerycam",
    command="events",
    pidfile="celeryev.pid",
    keywords=EV.keywords,
    forced={"--camera": CAMERA},
    own=(click.Option(["--name"]), click.Option(["--enable-events"], is_flag=True)),
    help={
        **_EVENTS_HELP,
        "--name": "Node name of this camera, such as cam1@%h. What the broker keeps while it is away is kept under "
        "this name, so give one where the host's name changes. Default: celerycam@ and the host.",
        "--enable-events": "Tell the workers to send the events of tasks, at the start and when one appears. The "
        "setting DJCELERY_CAMERA_ENABLE_EVENTS does the same.",
        "--camera": "Accepted and not used: celerycam writes events itself, by no camera class. Use celeryev for one.",
        "--logfile": "Write the log to this file. Default: standard error. The short -f means the log file only if its "
        "value is not a number.",
    },
)

#: The programs by the sub-command of the umbrella ``celery`` that starts them.
PROGRAMS = {
    "worker": "celeryd",
    "beat": "celerybeat",
    "events": "celeryev",
    "multi": "celeryd_multi",
    "amqp": "camqadm",
}

#: Sub-commands of ``celeryctl`` and ``celery`` that have another name today.
SUBCOMMANDS = {"apply": "call"}

#: Methods of sub-commands that moved.
METHODS = {
    ("inspect", "registered_tasks"): ("inspect", "registered"),
    ("inspect", "enable_events"): ("control", "enable_events"),
    ("inspect", "disable_events"): ("control", "disable_events"),
    ("inspect", "add_consumer"): ("control", "add_consumer"),
    ("inspect", "cancel_consumer"): ("control", "cancel_consumer"),
}

#: Options of sub-commands that have another spelling today.
SUBCOMMAND_OPTIONS = {("shell", "-P"): "--python"}

#: Arguments of ``camqadm`` in the order of django-celery, with those that today's Celery doesn't know.
AMQP_ARGUMENTS = {
    "exchange.declare": ("exchange", "type", "passive", "durable", "auto_delete", "internal"),
    "queue.declare": ("queue", "passive", "durable", "exclusive", "auto_delete"),
}

#: The arguments in ``AMQP_ARGUMENTS`` without a counterpart, and what to do when one is wanted.
AMQP_REMOVED = {
    "internal": "Declare the internal exchange with the broker's own tool (rabbitmqadmin), or pass no.",
    "exclusive": "An exclusive queue would end with this command; write exclusive=True on the kombu.Queue in "
    "CELERY_TASK_QUEUES, or pass no.",
}
