"""The bundled encoder as a model class of vLLM's, for its `token_classify` pooling.

The trunk is vLLM's own BERT. The pooler reads every head from its states, so that one request
answers every task. Source of the trunk: vllm.model_executor.models.bert (vLLM 0.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import Pooler, PoolingParamsUpdate
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.models.bert import BertModel
from vllm.model_executor.models.interfaces_base import attn_type, default_pooling_type
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, maybe_prefix
from vllm.sequence import IntermediateTensors
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata

from reviewmesh_worker.engines.encoder.encoding import SHAPE_COUNT
from reviewmesh_worker.engines.encoder.network import ReviewHeads
from reviewmesh_worker.tasks.labels import HeadLabels


class ShapedEmbedding(nn.Module):
    """Word, position and shape; a packed id is `word + vocabulary * shape`."""

    def __init__(self, config: object) -> None:
        super().__init__()
        width: int = config.hidden_size  # type: ignore[attr-defined]
        positions: int = config.max_position_embeddings  # type: ignore[attr-defined]
        self._vocabulary: int = config.review_vocabulary  # type: ignore[attr-defined]
        self.word_embeddings = VocabParallelEmbedding(self._vocabulary, width)
        self.position_embeddings = VocabParallelEmbedding(positions, width)
        self.shape_embeddings = VocabParallelEmbedding(SHAPE_COUNT, width)
        epsilon: float = config.layer_norm_eps  # type: ignore[attr-defined]
        self.LayerNorm = nn.LayerNorm(width, eps=epsilon)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        words = self.word_embeddings(input_ids % self._vocabulary)
        shapes = self.shape_embeddings(input_ids // self._vocabulary)
        normed: Tensor = self.LayerNorm(words + self.position_embeddings(position_ids) + shapes)
        return normed


class HeadsPooler(Pooler):
    """Per request one row: sentiment, topics, polarities, then the tags of each token, as logits.

    Shape (labels + topics + topics * polarities + tokens * tags,).
    """

    def __init__(self, heads: ReviewHeads, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__()
        # Not as a submodule: its parameters are loaded where the model holds it.
        self._heads = [heads]
        self._vocabulary = vocabulary
        self._dtype = dtype

    def get_supported_tasks(self) -> Set[PoolingTask]:
        return {"token_classify"}

    def get_pooling_updates(self, task: PoolingTask) -> PoolingParamsUpdate:
        return PoolingParamsUpdate(requires_token_ids=True)

    def forward(self, hidden_states: Tensor, pooling_metadata: PoolingMetadata) -> list[Tensor]:
        sizes = pooling_metadata.prompt_lens.tolist()
        hidden = pad_sequence(hidden_states.to(self._dtype).split(sizes), batch_first=True)
        # vLLM's first model runner, which serves on CPU, gives the ids on the CPU only.
        packed = pad_sequence(pooling_metadata.get_prompt_token_ids_cpu(), batch_first=True)
        packed = packed.to(hidden.device)
        lengths = torch.tensor(sizes, device=hidden.device)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        mask = (places[None, :] < lengths[:, None]).to(self._dtype)
        (heads,) = self._heads
        *whole, tags = heads.read(hidden, packed // self._vocabulary, mask)
        together = torch.cat([part.flatten(1) for part in whole], 1)
        return [
            torch.cat((together[row], tags[row, :size].flatten())) for row, size in enumerate(sizes)
        ]


@attn_type("encoder_only")
@default_pooling_type(tok_pooling_type="ALL")
class ReviewEncoder(nn.Module):
    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        model = vllm_config.model_config
        labels = {name: tuple(each) for name, each in model.hf_config.review_labels.items()}
        self.bert = BertModel(
            vllm_config=vllm_config,
            prefix=maybe_prefix(prefix, "bert"),
            embedding_class=ShapedEmbedding,
        )
        self.heads = ReviewHeads(HeadLabels(**labels)).to(model.head_dtype)
        self._vocabulary: int = model.hf_config.review_vocabulary
        self.pooler = HeadsPooler(self.heads, self._vocabulary, model.head_dtype)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.bert.embed_input_ids(input_ids % self._vocabulary)
        return embedded

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        states: Tensor = self.bert(input_ids=input_ids, positions=positions)
        return states

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=WeightsMapper())
        return loaded
