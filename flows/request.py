"""Asking a Prefect server to look at what is due: a run of the deployment `retrain/retrain`, or an event."""

from models.errors import TryAgain, UserError
from tasks.mlflow_client import without_secrets

DEPLOYMENT = "retrain/retrain"


def start_retrain(*, teacher: str, via: str) -> str:
    """Start the deployment on the configured server without waiting for it; returns a line that says so."""
    import httpx
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    from flows.events import check_configured

    url = check_configured()
    try:
        run = run_deployment(DEPLOYMENT, parameters={"teacher": teacher, "via": via}, timeout=0, as_subflow=False)
    except ObjectNotFound:
        raise UserError(f"the Prefect server has no deployment {DEPLOYMENT}: run prefect deploy --all") from None
    except httpx.HTTPError as error:
        told = without_secrets(f"no Prefect server answers at {url} ({error})")
        raise TryAgain(f"{told}: start it, or correct PREFECT_API_URL") from None
    return f"asked: run {getattr(run, 'name', '')} of {DEPLOYMENT}"


def tell(teacher: str, version: int) -> str:
    """Announce a promoted teacher where a Prefect server is configured; returns a line either way."""
    from prefect.settings import PREFECT_API_URL

    from flows.events import announce

    if not PREFECT_API_URL.value():
        return "no Prefect server is configured: understudy retrain follows it now, the schedule does later"
    try:
        announce(teacher, str(version), source="understudy")
    except UserError as error:
        return f"the Prefect server was not told ({error}): the schedule finds it"
    return "the Prefect server was told"
