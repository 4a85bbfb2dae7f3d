"""Whether the Hugging Face hub can be reached, asked once and within a second."""

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 1.2  # seconds for the name and the connection; the hub's own client tries for a minute


@functools.cache
def hub_reachable() -> bool:
    """Return whether the hub, or the proxy in front of it, takes a connection within `PATIENCE`.

    The answer holds for the whole process. In the hub's offline mode nothing is tried.
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return False
    answers: list[bool] = []
    # Looking up a name has no timeout of its own, so a thread that may be left behind does it.
    thread = threading.Thread(target=lambda: answers.append(_connects(*_address())), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers and answers[0])


def _address() -> tuple[str, int]:
    """Return host and port of the hub, or of the proxy through which it is reached."""
    from huggingface_hub.constants import ENDPOINT

    hub = urlsplit(os.environ.get("HF_ENDPOINT") or ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(hub.hostname or ""):
        hub = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return hub.hostname or "", hub.port or (443 if hub.scheme == "https" else 80)


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PATIENCE):
            return True
    except (OSError, UnicodeError):  # UnicodeError: a name that cannot be one of a host
        return False
