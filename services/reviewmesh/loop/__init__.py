"""The exactly-once core: a stage's records in and out, the completion ledger, progress."""
