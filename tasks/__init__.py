"""The Celery edge: app extension, step task, signals, relay, sweeper, embedded worker."""
