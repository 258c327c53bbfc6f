"""Reports: one model, rendered as Markdown, HTML and PDF."""
