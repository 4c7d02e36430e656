"""Telling Prefect that a teacher was promoted; the automation in prefect.yaml starts `retrain` for it.

The event carries nothing that a retrain relies on: `retrain` looks at what is pinned and registered. So an event
that comes twice, late or not at all does no harm; the schedule in prefect.yaml finds what it would have told.
"""

from typing import Any

from models.errors import TryAgain, UserError
from tasks.mlflow_client import without_secrets

PROMOTED = "teacher.promoted"
PATIENCE_S = 10.0  # whoever calls (MLflow's webhook waits 30 s) hears of a server that hangs


def announce(teacher: str, version: str, *, source: str) -> None:
    """Put the event on the configured Prefect server; when this returns the server has it.

    Every call is an event of its own, with its own id. TryAgain when the server does not answer or is at fault,
    UserError when none is configured or it refuses the event.
    """
    from prefect.events import Event, Resource

    event = Event(
        event=PROMOTED,
        resource=Resource({"prefect.resource.id": f"understudy.teacher.{teacher}"}),
        payload={"teacher": teacher, "version": version, "source": source},
    )
    _put([event.model_dump(mode="json")])


def check_configured() -> str:
    """The address of the configured Prefect server, without asking it anything; UserError when there is none."""
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    if not url:
        raise UserError("PREFECT_API_URL is not set: set it to the Prefect server's address, such as http://HOST/api")
    return url


def _put(events: list[dict[str, Any]]) -> None:
    """One POST with Prefect's own client, which knows its settings for passwords, keys and certificates.

    Prefect's `emit_event` queues the event in the background and reports no loss.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = check_configured()
    try:
        # Its retries would outlast the caller's patience; who called tries again.
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": PATIENCE_S}) as client,
        ):
            client.request("POST", "/events", json=events)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        line = f"the Prefect server at {without_secrets(url)} answered {code} to the event {PROMOTED}"
        if code in (401, 403):
            raise UserError(f"{line}: set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as it expects") from None
        if code < 500 and code != 429:
            raise UserError(f"{line}: is it a Prefect 3 server? see PREFECT_API_URL") from None
        raise TryAgain(f"{line}: see its log, and try again") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = without_secrets(" ".join(str(error).split())[:200]) or type(error).__name__
        raise TryAgain(
            f"no Prefect server answers at {without_secrets(url)} ({why}): start it (prefect server start), or correct "
            "PREFECT_API_URL"
        ) from None
