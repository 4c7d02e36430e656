"""The `genai` teacher: Imagen on Vertex AI, or Gemini's picture models, by Google's own client.

Who pays is told by the environment alone, as google-genai reads it: GOOGLE_API_KEY, or GOOGLE_GENAI_USE_VERTEXAI with
GOOGLE_CLOUD_PROJECT, GOOGLE_CLOUD_LOCATION and Google's application default credentials. The block's `call` is the
client's own configuration of the call, and `prompt`.
Raise its number in models/teachers/digests.py when the output changes.
"""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.ledger import Busy, Lost
from models.teachers.remote import Limits, Refused, RemoteTeacher

TIMEOUT_MS = 120_000
KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")


class GenaiTeacher(RemoteTeacher):
    """One picture a call: `edit_image` for models named imagen-..., `generate_content` for others."""

    def __init__(
        self, *, name: str, version: int, model: str, call: Mapping[str, Any], size: int, store: Path, **limits: Any
    ) -> None:
        try:
            from google import genai
        except ImportError:
            raise UserError(
                f"teacher {name} v{version}: google-genai is not installed: pip install -c constraints.txt '.[imagen]'"
            ) from None
        digest = teacher_digest({"kind": "genai", "model": model, "call": call, "size": size})
        super().__init__(name=f"{name} v{version}", digest=digest, store=store, limits=Limits(**limits), size=size)
        self.model, self.said, self.edits = model, dict(call), model.startswith("imagen")
        # Google means Imagen's editing to end in 2027; Gemini's models, which follow it, are asked by the other call.
        warnings.filterwarnings("ignore", message="The edit_image method is deprecated")
        try:
            # Its own tries are not counted in the ledger, so it is to make none. Only Vertex AI has Imagen's editing.
            self.client = genai.Client(
                vertexai=True if self.edits else None,
                http_options={"timeout": TIMEOUT_MS, "retry_options": {"attempts": 1}},
            )
        except (ValueError, OSError) as error:
            raise UserError(f"teacher {self.name}: {self._safe(error)}: set GOOGLE_API_KEY, or Vertex AI's") from None

    def ask(self, picture: bytes, seed: int) -> bytes | Refused:
        """As RemoteTeacher says."""
        import google.auth.exceptions
        import httpx2
        from google.genai import errors
        from pydantic import ValidationError

        try:
            return self._edit(picture, seed) if self.edits else self._generate(picture, seed)
        except errors.APIError as error:
            told = f"{self.model} answers {error.code} ({self._safe(error.message or error.status)})"
            if error.code in (408, 429) or error.code >= 500:
                raise Busy(told) from None
            raise UserError(f"teacher {self.name}: {told}") from None
        except (httpx2.ConnectError, google.auth.exceptions.TransportError) as error:
            raise Busy(f"{self.model} cannot be reached ({self._safe(error)})") from None
        except (httpx2.HTTPError, TimeoutError) as error:
            raise Lost(f"{self.model} gave no answer ({self._safe(error) or type(error).__name__})") from None
        except google.auth.exceptions.GoogleAuthError as error:
            raise UserError(f"teacher {self.name}: no credentials ({self._safe(error)})") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(f"teacher {self.name}: call.{key}: {first['msg']}") from None

    def _edit(self, picture: bytes, seed: int) -> bytes | Refused:
        """Imagen's editing (Vertex AI)."""
        from google.genai import types

        settings = {key: value for key, value in self.said.items() if key != "prompt"}
        settings |= {"number_of_images": 1, "include_rai_reason": True}
        if settings.get("add_watermark") is False:  # the API takes a seed only without its watermark
            settings["seed"] = seed
        raw = types.RawReferenceImage(
            reference_id=1, reference_image=types.Image(image_bytes=picture, mime_type="image/png")
        )
        answer = self.client.models.edit_image(
            model=self.model,
            prompt=str(self.said["prompt"]),
            reference_images=[raw],
            config=types.EditImageConfig(**settings),
        )
        made = (answer.generated_images or [None])[0]
        if made is not None and made.image is not None and made.image.image_bytes:
            return made.image.image_bytes
        return Refused((made.rai_filtered_reason if made is not None else None) or "no picture and no reason")

    def _generate(self, picture: bytes, seed: int) -> bytes | Refused:
        """A model that answers with text and pictures (Gemini)."""
        from google.genai import types

        settings = {key: value for key, value in self.said.items() if key != "prompt"}
        answer = self.client.models.generate_content(
            model=self.model,
            contents=[types.Part.from_bytes(data=picture, mime_type="image/png"), str(self.said["prompt"])],
            config=types.GenerateContentConfig(response_modalities=["IMAGE"], seed=seed, **settings),
        )
        for candidate in answer.candidates or []:
            for part in (candidate.content.parts if candidate.content else None) or []:
                if part.inline_data and part.inline_data.data:
                    return part.inline_data.data
        feedback = answer.prompt_feedback
        reasons = [feedback.block_reason.value] if feedback and feedback.block_reason else []
        reasons += [each.finish_reason.value for each in answer.candidates or [] if each.finish_reason]
        return Refused(", ".join(reasons) or "no picture and no reason")

    @staticmethod
    def _safe(what: object) -> str:
        """A message in one line, without the key."""
        line = " ".join(str(what).split())[:300]
        for name in KEYS:
            if os.environ.get(name):
                line = line.replace(os.environ[name], "***")
        return re.sub(r"([?&]key=)[^&\s]+", r"\1***", line)
