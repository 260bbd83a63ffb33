"""Quota checks: a request that would exceed its owner's quota is refused, with what is used and what is allowed."""

from typing import NoReturn

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.models import Tenant
from service.errors import JobQuotaExceeded, StorageQuotaExceeded
from service.quotas import usage
from service.settings import Settings
from ssl_core.errors import Fault

_NAMES = {"train": "training and evaluation", "data": "uploads, imports and indexes"}  # of the queues


def check_jobs(session: Session, tenant_id: str, queue: str, settings: Settings) -> None:
    """Check that the tenant may queue one more job. Raises JobQuotaExceeded.

    Like `check_bytes` it locks the tenant's row until the commit, so that concurrent requests are counted.
    """
    allowed = settings.quota_queued_jobs
    if not allowed:
        return
    lock(session, tenant_id)
    used = usage.count_jobs(session, tenant_id, queue).queued
    if used >= allowed:
        detail = f"{used:,} jobs of {_NAMES[queue]} are queued; at most {allowed:,} are allowed."
        raise JobQuotaExceeded(detail, errors=[Fault(pointer="queued_jobs", code="quota_exceeded", detail=detail)])


def check_bytes(session: Session, tenant_id: str, settings: Settings, more: int = 1) -> None:
    """Check that the tenant may store so many more bytes. Raises StorageQuotaExceeded."""
    if settings.quota_bytes:
        lock(session, tenant_id)
        used = usage.measure_bytes(session, tenant_id).total
        if used + more > settings.quota_bytes:
            raise_storage_quota(used, settings.quota_bytes)


def raise_storage_quota(used: int, allowed: int) -> NoReturn:
    """Raise StorageQuotaExceeded."""
    detail = f"{used:,} bytes are stored, and this does not fit: at most {allowed:,} are allowed."
    raise StorageQuotaExceeded(detail, errors=[Fault(pointer="bytes", code="quota_exceeded", detail=detail)])


def lock(session: Session, tenant_id: str) -> None:
    """Lock the tenant's row until the commit: before those of its sweeps, and these before those of its jobs."""
    session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))
