"""Maintenance: jobs that run by schedule, each due time once, whoever looks and however many."""
