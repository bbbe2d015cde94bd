"""A bundle's heads and policies on the device: what a loaded bundle brings, and a swap copies into the live buffers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ipr_engine._extras import need
from ipr_engine.cuda.recording import PURPOSE
from ipr_engine.decide.contract import Heads
from ipr_engine.gpu_router.route_rows import Windows
from ipr_engine.kernels.plan import GpuPlan

POLICY_ROWS = 64  # policies on the device at once; the one used longest ago gives its row to a new one

PolicyT = TypeVar("PolicyT")


class GpuHeads(Generic[PolicyT]):
    """Packed heads, in float32, and the rows of the policies used lately.

    Attributes:
        packed: the heads, as the CPU plans them. plan: kernels' GpuPlan of them on `device`.
        windows: the candidates' context windows.
    """

    def __init__(
        self, packed: Heads, windows: Windows, op_terms: Callable[[PolicyT], Mapping[str, Any]], device: str
    ) -> None:
        """op_terms: a policy of the heads' bundle -> DecidePolicy's arguments."""
        self.packed, self.windows = packed, windows
        self._op_terms = op_terms
        self.plan = GpuPlan(packed, device=device, policies=POLICY_ROWS)
        if self.plan.device.type == "cuda":
            need("torch", PURPOSE, "gpu").cuda.synchronize(
                self.plan.device
            )  # filled in another stream than is read from
        self._rows: OrderedDict[int, tuple[PolicyT, int]] = OrderedDict()

    @property
    def variant(self) -> tuple[Any, ...]:
        """What two heads share that the same recordings can run."""
        plan = self.plan
        return plan.variant(), plan.launch, plan.models, tuple(plan.weights.shape), tuple(plan.policies.shape)

    def row_of(self, policy: PolicyT, live: GpuPlan) -> int:
        """Return the policy's row; where it is new, write it into the plan and into the `live` one, in the stream's order.

        Only within Graphs.exclusive.
        """
        found = self._rows.get(id(policy))  # the kept policy cannot lose its id
        if found is not None:
            self._rows.move_to_end(id(policy))
            return found[1]
        row = len(self._rows) if len(self._rows) < POLICY_ROWS else self._rows.popitem(last=False)[1][1]
        torch = need("torch", PURPOSE, "gpu")
        packed = torch.from_numpy(self.plan.pack_policy(**self._op_terms(policy)))
        self.plan.policies[row].copy_(packed)
        live.policies[row].copy_(self.plan.policies[row])
        self._rows[id(policy)] = policy, row
        return row
