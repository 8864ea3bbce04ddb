"""The `vllm` engine: models that vLLM runs in a process of its own, on a GPU or on CPU.

`encoder` serves the bundled encoder by pooling, `chat` chat models by generation; both use
`core`, the only module that starts vLLM.
"""

from __future__ import annotations

from typing import Final

ENGINE_NAME: Final = "vllm"
ARCHITECTURE: Final = "ReviewEncoder"
"""The name under which vLLM knows the model class of the bundled encoder."""
