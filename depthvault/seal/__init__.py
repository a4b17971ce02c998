"""From journals to live Parquet: decoding, one receipt a writer and period."""

from depthvault.seal.receipts import Receipt, read_receipt, receipts
from depthvault.seal.sealing import Sealer, seal, seal_all, seal_due
from depthvault.seal.unsealed import unsealed

__all__ = ["Receipt", "Sealer", "read_receipt", "receipts", "seal", "seal_all", "seal_due", "unsealed"]
