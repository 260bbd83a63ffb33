"""The audit trail: who made, cancelled, deleted and downloaded what, and which keys were made, revoked and refused."""

from service.audit.actions import ACTIONS, Action
from service.audit.trail import Actor, delete_old, list_, record

__all__ = ["ACTIONS", "Action", "Actor", "delete_old", "list_", "record"]
