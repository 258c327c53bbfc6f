"""The policy at the doors of a session: what is written of a plan, of what describes it, and of what an agent gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ...config import Settings
from ...storage.keys.sealing import KeyRing
from ..agents import AgentOutput, Finding
from ..plans import Plan, Step
from ..rows import as_step
from ..work import Work
from .policy import Policy, holds_sealed


def open_for(settings: Settings) -> tuple[KeyRing | None, Policy]:
    """The key ring and the policy of the settings. Raises SettingsError."""
    keyring = KeyRing.load(settings)
    policy = Policy.load(settings.guard_rules, keyring)
    policy.withholds = settings.encrypt == "all"
    return keyring, policy


def place_of(session_id: str) -> str:
    """What sealed fields of a session are bound to."""
    return f"session:{session_id}"


def opened(policy: Policy, request: Any, session_id: str) -> Any:
    """A request as its agent gets it: with its sealed fields opened. Raises SealBroken and KeyMissing."""
    return policy.reveal(request, place_of(session_id)) if policy.seals else request


def guarded_plan(policy: Policy, plan: Plan, place: str) -> Plan:
    """The plan with its requests guarded; its names and references stay."""
    if not policy.active:
        return plan
    return Plan(plan.name, guarded_steps(policy, plan.steps, place), policy.apply(plan.description, place))


def guarded_steps(policy: Policy, steps: Iterable[Step], place: str) -> list[Step]:
    """Steps with their requests guarded; fields that only refer to an output stay, to be filled in."""
    return [
        replace(
            one,
            request=policy.apply(one.request, place, references=True),
            plan=tuple(guarded_steps(policy, one.plan, place)),
        )
        for one in steps
    ]


def guard_output(policy: Policy, work: Work, output: AgentOutput) -> None:
    """Guard what an agent gave, in place: data, findings, added steps. The second time it changes nothing.

    What holds a sealed field opens in this session only, so it is not cached for others.
    """
    if not policy.active:
        return
    place = place_of(work.session_id)
    output.data = policy.apply(output.data, place)
    output.findings = [_finding(policy, one, place) for one in output.findings]
    output.add_steps = guarded_steps(policy, map(as_step, output.add_steps), place)
    work.private = work.private or holds_sealed([output.data, [one.value for one in output.findings]])


def _finding(policy: Policy, one: Finding, place: str) -> Finding:
    """The name of its attribute counts as that of a field."""
    ((attribute, value),) = policy.apply({one.attribute: one.value}, place).items()
    entity, evidence = policy.apply(one.entity, place), policy.apply(one.evidence, place)
    return replace(one, entity=entity, attribute=attribute, value=value, evidence=evidence)
