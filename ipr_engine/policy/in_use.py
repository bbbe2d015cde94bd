"""A loaded bundle keeps the policies compiled for it: those of keyword arguments, those that callers hold, those of a bundle before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from weakref import ReferenceType, WeakValueDictionary, ref

from ipr_engine.bundle import BundleSpec, Performance
from ipr_engine.decide.contract import DecidePlan
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import Calibrations
from ipr_engine.policy.compile import PolicyContext, compile_policy
from ipr_engine.policy.cost_weights import Figures, merged_figures
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import DEFAULTS, PolicySpec, frozen_options, options_on
from ipr_engine.policy.rules import TARGETS
from ipr_engine.prompts import BODY

MAX_KEPT_POLICIES = 256
_KNOWN = frozenset(DEFAULTS)


class PoliciesInUse:
    """A `PoliciesInUse` compiles policies for a loaded bundle and keeps them, so that a call finds its own compiled.

    Nothing of it changes once made, except its bounded caches, where every thread would put the same, and its figures.

    Attributes:
        bundle, calibrations: of the loaded bundle; its drift flag says until when a policy is this bundle's own.
        paths: tau's path of each candidate set a policy asked for.
        refreshed: the figures that `measure` was given, of candidates that this bundle lacks too: another may have them again.
        measured: each candidate's figures, for policies that weigh more than USD: the bundle's, with the refreshed in their place.
        followed: id of a policy made for another bundle or with other figures -> a reference to it, and what stands in for it here.
    """

    def __init__(
        self,
        bundle: BundleSpec,
        plan: DecidePlan,
        second_plan: DecidePlan | None,
        calibrations: Calibrations,
        refreshed: Figures = MappingProxyType({}),
    ) -> None:
        """Begin with no policy. plan, second_plan: of the bundle's heads and second heads. refreshed: of the loaded bundle before."""
        self.bundle = bundle
        self.calibrations = calibrations
        self.paths = Paths(bundle)
        self.refreshed = refreshed
        self.measured = self._with_bundle(refreshed)
        self.followed: dict[int, tuple[ReferenceType[Policy], Policy]] = {}
        self._plans = plan, second_plan
        self._of_options: dict[tuple[tuple[str, Any], ...], Policy] = {}
        self._held: WeakValueDictionary[int, Policy] = WeakValueDictionary()

    def compile(self, options: Mapping[str, Any], measured: Figures | None = None) -> Policy:
        """Return the policy of these options (tau, and what differs from the defaults) for this bundle.

        measured: figures in place of the loaded bundle's own.
        """
        plan, second_plan = self._plans
        context = PolicyContext(
            bundle=self.bundle,
            plan=plan,
            second_plan=second_plan,
            calibrations=self.calibrations,
            paths=self.paths,
            measured=self.measured if measured is None else measured,
        )
        return replace(compile_policy(PolicySpec(**options), context), options=frozen_options(options))

    def keep(self, policy: Policy) -> Policy:
        """Return the policy, known as long as somebody holds it: what changes under it compiles it anew before it is asked for."""
        self._held[id(policy)] = policy  # by id: hashing a policy costs more; a weak value goes with its last holder
        return policy

    def of_options(self, options: Mapping[str, object]) -> Policy:
        """Return the policy of a call's keyword arguments, kept for the next call when they are plain values."""
        if not _KNOWN.issuperset(options):
            unknown = sorted(options.keys() - _KNOWN)
            whole = (
                ""
                if not set(unknown) & set(BODY)
                else "; a request with its tools and limits is given whole, as the prompt"
            )
            raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: {', '.join(sorted(DEFAULTS))}{whole}")
        if "tau" not in options and not options.keys() & set(TARGETS):
            raise InvalidInputError("tau: missing; pass tau=... in [0, 1], or a policy from engine.policy(...)")
        # Other types are compiled each time: a list cannot be a key, and True and Decimal(1) would be found as 1.
        if not all(type(value) in (int, float, str) for value in options.values()):
            return self.compile(options)
        key = tuple(options.items())
        kept = self._of_options.get(key)
        if kept is None:
            kept = self.compile(options)
            if (
                len(self._of_options) >= MAX_KEPT_POLICIES
            ):  # a caller of ever new values: begin anew, without an order to keep
                self._of_options.clear()
            self._of_options[key] = kept
        return kept

    def follow(self, policy: Policy) -> Policy:
        """Return a policy made for another bundle or with other figures, its options compiled for these: once, then kept."""
        found = self.followed.get(id(policy))  # hashing a policy costs more
        if found is not None and found[0]() is policy:
            mine = found[1]
            if mine.measured is None or mine.measured is self.measured:
                return mine
        bundle = self.bundle
        try:
            mine = self.compile(options_on(policy.options, bundle.names))
        except InvalidInputError as error:
            if policy.bundle_hash == bundle.hash and policy.measured is not None:  # nothing else changed under it
                raise InvalidInputError(
                    "policy: figures that it weighs were taken back by update_performance since it was made, or given in another "
                    f"process alone ({error})"
                ) from error
            raise InvalidInputError(
                f"policy: made for bundle {policy.bundle_hash[:12]}, and its terms do not fit bundle {bundle.hash[:12]}, "
                f"which serves now ({error}); make it anew with engine.policy(...)"
            ) from error
        self.followed[id(policy)] = self._while_held(policy), mine
        return mine

    def measure(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take new figures of candidates; see `Engine.update_performance`. Policies in use that weigh them are compiled here."""
        refreshed = merged_figures("figures", self.refreshed, figures, self.bundle.names)
        measured = self._with_bundle(refreshed)
        weighing = [policy for policy in self._in_use() if policy.measured is not None]
        compiled = self._compiled(weighing, measured)
        # compiled first, put in place after: a call finds the old figures or the new ones, never a half
        self.refreshed, self.measured = refreshed, measured
        self.followed.update(compiled)  # a call between the two compiles its policy itself

    def inherit(self, before: PoliciesInUse) -> None:
        """Compile what is in use on the bundle before, before this one serves: no call pays for it then."""
        self.followed.update(self._compiled(before._in_use(), self.measured))
        for key in list(before._of_options):  # a copy: calls go on adding to it
            with suppress(InvalidInputError):
                self.of_options(dict(key))

    def _in_use(self) -> list[Policy]:
        """Return the policies that somebody holds, made here or on a bundle before."""
        references = [*self._held.valuerefs(), *(reference for reference, _ in list(self.followed.values()))]
        held = {id(policy): policy for reference in references if (policy := reference()) is not None}
        return list(held.values())[:MAX_KEPT_POLICIES]

    def _compiled(
        self, policies: Sequence[Policy], measured: Figures
    ) -> dict[int, tuple[ReferenceType[Policy], Policy]]:
        """Compile these policies for this bundle, where they need it and fit; the others are refused when a call brings them."""
        made = {}
        for policy in policies:
            mine = policy.bundle_hash == self.bundle.hash and policy.drift is self.calibrations.drift
            if not mine or policy.measured is not None:
                with suppress(InvalidInputError):
                    options = options_on(policy.options, self.bundle.names)
                    made[id(policy)] = self._while_held(policy), self.compile(options, measured)
        return made

    def _while_held(self, policy: Policy) -> ReferenceType[Policy]:
        """Return a weak reference that takes the entry of `followed` with it, once nobody holds the policy any more."""
        at, followed = id(policy), self.followed
        return ref(policy, lambda _: followed.pop(at, None))

    def _with_bundle(self, refreshed: Figures) -> Figures:
        """Return the figures of the bundle's candidates, with these in their place."""
        stated = {c.name: c.performance for c in self.bundle.candidates if c.performance is not None}
        own = {name: figures for name, figures in refreshed.items() if name in self.bundle.names}
        return merged_figures("figures", stated, own, self.bundle.names)
