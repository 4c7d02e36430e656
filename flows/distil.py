"""The flow: one student from inputs to bundle, a Prefect task per DVC stage, in a straight line.

DVC decides what has to run and owns the cache; Prefect adds time-outs, retries where a second try can help,
a schedule (prefect.yaml) and a page per run. `understudy run` calls it; `dvc repro` does the same work without.
"""

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.headline import as_markdown, headline
from models.errors import TryAgain
from tasks.params import load_params
from tasks.pipeline import STAGES, StageFailed, StageRun, fresh_stages, run_stage, up_to
from tasks.stage import TRY_AGAIN

MINUTE = 60.0


def _bring(stage: str, student: str, timeout_s: float, fresh: bool) -> StageRun:
    """Bring a stage up to date; one that is known to be fresh costs no process."""
    if fresh:
        done = StageRun(stage=stage, outcome="unchanged", seconds=0.0)
    else:
        done = run_stage(stage, student, timeout_s=timeout_s)
    print(f"{stage:<14}{done.outcome:<10}{done.seconds:7.1f} s", flush=True)
    return done


def _can_pass(task: Task[..., StageRun], run: TaskRun, state: State[StageRun]) -> bool:
    """Retry only what a second try can mend: a server that did not answer."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, TryAgain) or (isinstance(failure, StageFailed) and failure.code == TRY_AGAIN)


# The time-outs are kept by tasks.pipeline, which ends the stage's whole process group; Prefect's own does not.
@task(cache_policy=NO_CACHE)
def ingest(student: str, fresh: bool) -> StageRun:
    """Inputs, shared by all students."""
    return _bring("ingest", student, 30 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def dataset(student: str, fresh: bool) -> StageRun:
    """Labelled examples, shared by all classifiers of them."""
    return _bring("dataset", student, 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def exportability(student: str, fresh: bool) -> StageRun:
    """What the untrained student's files would be on a phone."""
    return _bring("exportability", student, 30 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def generate(student: str, fresh: bool) -> StageRun:
    """The teacher over the inputs."""
    return _bring("generate", student, 24 * 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def curate(student: str, fresh: bool) -> StageRun:
    """Pairs kept and rejected."""
    return _bring("curate", student, 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def train(student: str, fresh: bool) -> StageRun:
    """The student's weights."""
    return _bring("train", student, 24 * 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def quantise(student: str, fresh: bool) -> StageRun:
    """LiteRT and ONNX files."""
    return _bring("quantise", student, 30 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def detector(student: str, fresh: bool) -> StageRun:
    """What tells an app that a frame lies outside what the student was taught on."""
    return _bring("detector", student, 30 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def benchmark(student: str, fresh: bool) -> StageRun:
    """Latency and memory of each file."""
    return _bring("benchmark", student, 30 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def variants(student: str, fresh: bool) -> StageRun:
    """Cuts of the student beside each other, where they are asked for."""
    return _bring("variants", student, 24 * 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def video(student: str, fresh: bool) -> StageRun:
    """Flicker beside the teacher's; some hundred pictures of the teacher's, one after the other."""
    return _bring("video", student, 24 * 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def evaluate(student: str, fresh: bool) -> StageRun:
    """Quality of each file, and the report."""
    return _bring("evaluate", student, 60 * MINUTE, fresh)


@task(cache_policy=NO_CACHE)
def bundle(student: str, fresh: bool) -> StageRun:
    """What an app ships, with the gate's verdict."""
    return _bring("bundle", student, 10 * MINUTE, fresh)


@task(cache_policy=NO_CACHE, retries=1, retry_delay_seconds=5, retry_jitter_factor=0.5, retry_condition_fn=_can_pass)
def lineage(student: str, fresh: bool) -> StageRun:
    """The chain of digests, and the run in MLflow."""
    done = _bring("lineage", student, 10 * MINUTE, fresh)
    if done.outcome != "ran":
        # DVC had all of it in its cache, so the stage has not told MLflow about this run.
        from tasks.lineage import log_again

        log_again(student)
    return done


TASKS: dict[str, Task[..., StageRun]] = {
    one.name: one
    for one in (
        *(ingest, dataset, exportability, generate, curate, train, quantise, detector),
        *(benchmark, variants, video, evaluate, bundle, lineage),
    )
}


@flow(name="distil", flow_run_name="{student}")
def distil(student: str, until: str = STAGES[-1]) -> None:
    """Bring one student up to date as far as the stage `until`; a stage that fails ends the run, and MLflow is told."""
    done: list[StageRun] = []
    try:
        params = load_params()  # once: of a thousand students it takes a second
        fresh = fresh_stages(student, params)
        for stage in up_to(until, student, params):
            done.append(TASKS[stage](student, stage in fresh))
    except StageFailed as failure:
        if failure.code != TRY_AGAIN:  # that is MLflow itself not answering
            from tasks.lineage import log_failure

            log_failure(student, [run.stage for run in done], failure.stage, failure.reason)
        raise
    if until == STAGES[-1]:
        create_markdown_artifact(as_markdown(student, headline(student)), key=f"headline-{student}")
