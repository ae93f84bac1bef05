"""Image classifiers whose classification layer is fixed, redesigned or learned without labels."""
