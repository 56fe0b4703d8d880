"""The synthetic log: users with latent tastes, texts that carry the signal, and known click probabilities.

`synthesize` writes days of it into a landing folder; `oracle_auc` tells the best AUC a model can reach on them.
"""

from bahe_tasks.sources.synthetic.oracle import OracleNotFoundError, oracle_auc, read_oracle
from bahe_tasks.sources.synthetic.row_formats import FILE_FORMATS, FileFormat
from bahe_tasks.sources.synthetic.synthesize import SyntheticCounts, SyntheticLogError, synthesize

__all__ = [
    "FILE_FORMATS",
    "FileFormat",
    "OracleNotFoundError",
    "SyntheticCounts",
    "SyntheticLogError",
    "oracle_auc",
    "read_oracle",
    "synthesize",
]
