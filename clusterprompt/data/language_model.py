"""Ask a language model that the user names: an OpenAI-compatible HTTP endpoint, or a command. There is no default."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .fetch import ATTEMPTS, BROKEN, PAUSE

TIMEOUT = 300.0  # seconds for an answer
LARGEST = 1 << 20  # bytes of an answer


class ModelError(OSError):
    """A language model did not answer, or not with text; the message says what to do."""


class LanguageModel(NamedTuple):
    """A language model.

    Attributes:
        place: Address of an endpoint (``http://localhost:8000/v1``), or a command that reads the prompt from stdin and
            writes the answer to stdout.
        name: Of the model, as the endpoint knows it.
        key: Sent to the endpoint as a bearer token; empty for none.
    """

    place: str
    name: str
    key: str = ""

    def answer(self, prompt: str) -> str:
        """Return the model's answer, without what a reasoning model thinks before it.

        Raises:
            ModelError: There is none.
        """
        text = _ask_endpoint(self, prompt) if self.place.startswith(("http://", "https://")) else _ask(self, prompt)
        return re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse to be sent elsewhere: the key and the prompt are for the named endpoint alone."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _ask_endpoint(model: LanguageModel, prompt: str) -> str:
    """Ask an OpenAI-compatible endpoint; try again where it is overloaded or the connection breaks."""
    url = model.place.rstrip("/")
    url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
    shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
    body = json.dumps({"model": model.name, "messages": [{"role": "user", "content": prompt}]}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "clusterprompt"}
    headers |= {"Authorization": f"Bearer {model.key}"} if model.key else {}
    pause, reason = PAUSE, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause)
            pause *= 2
        try:
            with _opener.open(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as response:
                return _content(response.read(LARGEST + 1), shown)
        except urllib.error.HTTPError as error:
            reason = f"answered {error.code} ({error.reason})"
            if error.code < 500 and error.code not in (408, 429):
                break
        except BROKEN as error:
            reason = f"cannot be reached, or broke off ({getattr(error, 'reason', error) or type(error).__name__})"
        except (ValueError, http.client.InvalidURL) as error:
            raise ModelError(f"{shown} is no address that can be asked: {error}") from error
    way_out = "Is the server running? The same command goes on from here"
    if reason.startswith("answered 4"):
        way_out = "Is the model's name right, and does it need a key (--key-from VARIABLE)?"
    raise ModelError(f"{shown} {reason}. {way_out}")


def _content(answer: bytes, shown: str) -> str:
    """Return the text in an endpoint's answer."""
    try:
        if len(answer) <= LARGEST:
            content = json.loads(answer)["choices"][0]["message"]["content"]
            if isinstance(content, str):
                return content
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise ModelError(
        f"{shown} did not answer as an OpenAI-compatible endpoint does (choices[0].message.content): "
        f"{answer[:80].decode(errors='replace')!r}. Name the address up to /v1"
    )


def _ask(model: LanguageModel, prompt: str) -> str:
    """Ask a command."""
    try:
        words = shlex.split(model.place)
        done = subprocess.run(words, input=prompt.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the command {words[0]} gave no answer in {TIMEOUT:.0f} seconds") from error
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(
            f"--with {model.place!r} is neither an address (http://...) nor a command that can be started: {error}"
        ) from error
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"the command {words[0]} ended with exit code {done.returncode}: {last[:200]}")
    if len(done.stdout) > LARGEST:
        raise ModelError(f"the command {words[0]} wrote more than {LARGEST >> 20} MB; it should write the answer alone")
    return done.stdout.decode(errors="replace")
