"""Engine on a provider's model: any endpoint with OpenAI's chat completions.

`engine` prompts and reads answers, `endpoint` sends requests within the limits and says when the
endpoint is out of service, `failures` says what a failed request means.
"""

from __future__ import annotations

from typing import Final

ENGINE_NAME: Final = "openai"
