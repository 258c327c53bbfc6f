"""What remembers: tables, transactions, blobs, checkpoints. Knows rows and bytes, not rules."""
