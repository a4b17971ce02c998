"""From journals to live Parquet: decoding, one receipt a writer and period."""

from depthvault.seal.receipts import Receipt, read_receipt, receipts
from depthvault.seal.sealing import Sealer, recorded_exchanges, seal, seal_all, seal_due, seal_pending
from depthvault.seal.unsealed import unsealed

__all__ = [
    "Receipt",
    "Sealer",
    "read_receipt",
    "receipts",
    "recorded_exchanges",
    "seal",
    "seal_all",
    "seal_due",
    "seal_pending",
    "unsealed",
]
