"""A bundle's heads and policies on the device: what a loaded bundle brings, and a swap copies into the live buffers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ipr_engine._extras import need
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.context_windows import ContextWindows, capped_heads
from ipr_engine.cuda.graphs import PURPOSE
from ipr_engine.policy.policy import Policy, op_terms

POLICY_ROWS = 64  # policies on the device at once; the one used longest ago gives its row to a new one


class GpuHeads:
    """Packed heads, in float32, and the rows of the policies used lately.

    Attributes:
        bundle: whose. plan: kernels' GpuPlan on `device`. windows: the candidates' context windows.
    """

    def __init__(self, bundle: Bundle, device: str) -> None:
        from ipr_engine.kernels.plan import GpuPlan

        heads = bundle.quality_heads
        self.bundle = bundle
        self.packed = capped_heads(bundle.candidates, heads, bundle.tie_rank)
        self.plan = GpuPlan(self.packed, device=device, policies=POLICY_ROWS)
        if self.plan.device.type == "cuda":
            need("torch", PURPOSE, "gpu").cuda.synchronize(
                self.plan.device
            )  # filled in another stream than is read from
        self.windows = ContextWindows(bundle.candidates)
        self._rows: OrderedDict[int, tuple[Policy, int]] = OrderedDict()

    @property
    def form(self) -> tuple[Any, ...]:
        """What two heads share that the same recordings can run."""
        plan = self.plan
        return plan.form(), plan.launch, plan.models, tuple(plan.weights.shape), tuple(plan.policies.shape)

    def row_of(self, policy: Policy, live: Any) -> int:
        """The policy's row, written into the plan and into the `live` one, in the stream's order, where it is new.

        Only within Graphs.exclusive.
        """
        found = self._rows.get(id(policy))  # the kept policy cannot lose its id
        if found is not None:
            self._rows.move_to_end(id(policy))
            return found[1]
        row = len(self._rows) if len(self._rows) < POLICY_ROWS else self._rows.popitem(last=False)[1][1]
        torch = need("torch", PURPOSE, "gpu")
        terms = op_terms(self.bundle, policy.coefficients, policy.worth, policy.folded, policy.allowed)
        packed = torch.from_numpy(self.plan.pack_policy(**terms))
        self.plan.policies[row].copy_(packed)
        live.policies[row].copy_(self.plan.policies[row])
        self._rows[id(policy)] = policy, row
        return row
