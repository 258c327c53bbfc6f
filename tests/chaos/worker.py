"""The Celery app of the workers under test: Celeriac as it is, plus the faults that the environment asks for."""

from __future__ import annotations

import os

from celeriac import Celeriac
from chaos import commits, mutants

if os.environ.get(mutants.VARIABLE):
    mutants.MUTANTS[os.environ[mutants.VARIABLE]]()

celeriac = Celeriac()
if os.environ.get(commits.VARIABLE):
    database = celeriac._engine.database
    database._commit = commits.breaking(os.environ[commits.VARIABLE], database.is_sqlite)
app = celeriac.app
