"""Sets of job kinds that queries filter by, and the internal kinds; `ssl_core.config.kinds` defines the others."""

from ssl_core.config import KINDS

INGEST = "ingest"  # validates and packs an upload; the API does not show these jobs
INDEX = "index"  # builds an index of embeddings; the API does not show these jobs
IMPORT = "import"  # makes a model of uploaded weights; submitted by POST /models, not by POST /jobs
EMBED_SHARDS = "embed_shards"  # computes shards of its parent, so that another worker shares it; not shown either
HIDDEN_KINDS = (INGEST, INDEX, EMBED_SHARDS)

MODEL_KINDS = frozenset({IMPORT, *(kind for kind, config in KINDS.items() if config.trains)})
COMPARED_KINDS = frozenset(kind for kind, config in KINDS.items() if config.has_baselines)
JUDGED_KINDS = tuple(kind for kind, config in KINDS.items() if config.has_baselines or config.is_baseline)
BASELINE_KINDS = tuple(kind for kind, config in KINDS.items() if config.is_baseline)
SHARED_KINDS = frozenset(kind for kind, config in KINDS.items() if config.is_shared)
