"""Every error that Celeriac raises on purpose. Each message names the thing, what was found, what is allowed."""

from __future__ import annotations


class CeleriacError(Exception):
    """Root of the tree: catch this to catch all that Celeriac raises on purpose."""


class SettingsError(CeleriacError):
    """A setting is unknown or has a value that is not allowed."""


class StorageError(CeleriacError):
    """The database or the file store could not do what was asked."""


class NotSerializable(CeleriacError):
    """A value cannot be stored as JSON; the message names its path."""


class TooLarge(CeleriacError):
    """A value is over the size limit of the place it goes to."""


class BlobNotFound(StorageError):
    """No blob with that hash."""


class BlobDamaged(StorageError):
    """A blob's bytes do not match its hash."""


class QuotaExceeded(CeleriacError):
    """A session or a user has as much as the settings allow. Never retried."""


class BackupError(CeleriacError):
    """A backup cannot be made, read or restored as asked; nothing was changed."""


class BackupNotFound(BackupError):
    """No backup with that id."""


class BackupDamaged(BackupError):
    """A piece of a backup is missing or was changed; nothing was restored."""


class ArchiveError(CeleriacError):
    """A session cannot be archived, restored or erased as asked; nothing was lost."""


class ArchiveNotFound(ArchiveError):
    """The session is in no archive."""


class ArchiveDamaged(ArchiveError):
    """A piece of an archive is missing or was changed; nothing was restored."""


class MaintenanceError(CeleriacError):
    """There is no such job of maintenance, or it is at work already."""


class KeyMissing(CeleriacError):
    """A key that is needed is not in the key ring, or is another one than the object was sealed with."""


class SealBroken(CeleriacError):
    """A sealed object was changed, cut, or lies at another place than it was sealed for."""


class PlanError(CeleriacError):
    """A plan is not valid: unknown agent, cycle, duplicate or missing name, bad reference."""


class AgentNotFound(CeleriacError):
    """No agent of that name is registered."""


class AgentError(CeleriacError):
    """An agent answered with something that is not allowed."""


class PermissionMissing(CeleriacError):
    """A permission that the agent needs was not granted to the session. Never retried."""


class CallFailed(CeleriacError):
    """A durable call of an agent has failed for good. Another attempt of its caller meets the same."""


class CallMismatch(CeleriacError):
    """An agent ran again and made other durable calls than were recorded. Never retried."""


class AccessError(CeleriacError):
    """What was to be granted is no grant, or cannot be given so."""


class AccessDenied(CeleriacError):
    """The caller lacks a grant, which the message names. Nothing was changed. Never retried."""


class CacheError(CeleriacError):
    """The result cache was asked for something that it cannot do."""


class SessionError(CeleriacError):
    """A session cannot make that move from the state it is in."""


class SessionNotFound(CeleriacError):
    """No session with that id."""


class TemplateNotFound(CeleriacError):
    """No template of that name."""


class StepNotFound(CeleriacError):
    """No step of that name in the session."""


class CheckpointNotFound(CeleriacError):
    """No checkpoint with that id."""


class CheckpointDamaged(CeleriacError):
    """A checkpoint's content does not match its checksum; nothing was restored."""


class StepCancelled(CeleriacError):
    """Raised inside an agent by `ctx.check()` when its session was cancelled or its lease was lost."""


class StepTimeout(CeleriacError):
    """An agent ran past its time limit."""


class SchemaError(CeleriacError):
    """A schema is not valid or not compatible, a value does not fit one, or there is no way between two versions."""
