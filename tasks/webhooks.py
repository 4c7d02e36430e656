"""What MLflow's registry webhooks need on both sides: the secret, the signature, and the subscription.

The secret comes from UNDERSTUDY_WEBHOOK_SECRET; flows/webhook.py receives. An MLflow server sends webhooks only
 - over https to public addresses, unless its environment says MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and
   MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true (as a receiver on the same machine or network needs);
 - after a restart only with MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY in its environment, as it keeps the secret
   encrypted and makes up another key at every start where there is none.
"""

import base64
import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from models.errors import UserError
from tasks.mlflow_client import connected, tracking_uri

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

SECRET = "UNDERSTUDY_WEBHOOK_SECRET"
SHORTEST = 16  # characters
HOOK = "understudy"  # the webhook's name in MLflow
ABOUT = "tells the receiver (understudy webhook) that a teacher was promoted"
EVENT: Final = "model_version_alias.created"


def secret() -> str:
    """The secret that MLflow and the receiver share; UserError when there is none worth the name."""
    found = os.environ.get(SECRET, "")
    if len(found) < SHORTEST:
        said = f"has {len(found)} characters" if found else "is not set"
        raise UserError(f"{SECRET} {said}, {SHORTEST} are the least: make one with openssl rand -base64 32")
    return found


def signature(key: str, delivery: str, sent_at: str, body: bytes) -> str:
    """What MLflow puts into X-MLflow-Signature: HMAC-SHA256 over DELIVERY.SECONDS.BODY (standardwebhooks.com)."""
    digest = hmac.new(key.encode(), f"{delivery}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def subscribe(url: str) -> str:
    """Have MLflow call `url` whenever an alias moves, and try it once; returns a line that says so.

    Creates the webhook or brings it up to date; the server goes by what it knew before for up to a minute
    (MLFLOW_WEBHOOK_CACHE_TTL). UserError when the receiver cannot be reached or does not share the secret.
    """
    shared = secret()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url} is no address of a receiver: give one such as https://HOST/mlflow")
    if not tracking_uri().startswith(("http://", "https://")):
        raise UserError("only an MLflow server sends webhooks: set MLFLOW_TRACKING_URI to its address")
    with connected() as client:
        known = _ours(client)
        if known:
            hook = client.update_webhook(
                known[0], name=HOOK, url=url, events=[EVENT], secret=shared, status="ACTIVE", description=ABOUT
            )
        else:
            hook = client.create_webhook(name=HOOK, url=url, events=[EVENT], secret=shared, description=ABOUT)
        for double in known[1:]:  # two subscribed at once
            client.delete_webhook(double)
        tried = client.test_webhook(hook.webhook_id, EVENT)
    if not tried.success:
        why = tried.error_message or f"{tried.response_status} {tried.response_body or ''}"
        raise UserError(
            f"the webhook is set, but MLflow's trial call to {url} failed ({' '.join(why.split())[:300]}): start the "
            f"receiver there, with the same {SECRET}, and subscribe again"
        )
    return f"MLflow calls {url} when an alias moves"


def _ours(client: "Client") -> list[str]:
    """Ids of the webhooks that carry our name, newest first."""
    found, token = [], None
    while True:
        page = client.list_webhooks(max_results=100, page_token=token)
        found += [str(hook.webhook_id) for hook in page if hook.name == HOOK]
        token = page.token
        if not token:
            return found
