"""Importers and the synthetic log: something → landing contract (docs/contract.md)."""
