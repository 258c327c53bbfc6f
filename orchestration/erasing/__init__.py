"""What is taken out of everything for good, and the receipts of that."""
