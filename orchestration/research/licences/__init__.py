"""Licence due diligence: which licence each installed package carries, by its own papers, and where they disagree."""
